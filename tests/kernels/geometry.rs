//! The launch layer's geometry is what the entries were compiled for.

use swebench_infer::backend::cuda::Kernel;

use crate::compile::kernel_files;
use crate::emulator::Library;

#[test]
fn blocks_are_launched_as_they_were_compiled() {
    let entries = Library::kernels().entries();
    // Loading an image on a device asks for every entry that its file should have.
    for path in kernel_files() {
        let file = path.file_stem().unwrap().to_str().unwrap();
        let kernels: Vec<_> = Kernel::all().into_iter().filter(|kernel| kernel.file() == file).collect();
        assert!(!kernels.is_empty(), "{file}.cu: no kernel of it in src/backend/cuda/geometry.rs");
        for kernel in kernels {
            assert!(
                entries.iter().any(|entry| entry.name() == kernel.to_string()),
                "{file}.cu has no {kernel}"
            );
        }
    }
    for entry in entries {
        let kernel = Kernel::named(entry.name());
        let kernel =
            kernel.unwrap_or_else(|| panic!("{}: not in src/backend/cuda/geometry.rs", entry.name()));
        let block = kernel.block();
        assert_eq!(
            (block.threads, block.shared_bytes),
            (entry.threads, entry.shared_bytes),
            "{kernel}: threads and shared memory in geometry.rs, and as compiled"
        );
    }
}
