//! How much host memory this process uses, and may still use.

use std::fs;

/// Memory of this process that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidentMemory {
    /// Bytes now.
    pub now: u64,
    /// Most bytes at any time so far.
    pub peak: u64,
}

/// Physical memory of this process, mapped files included; `None` where the system does not say.
pub fn resident_memory() -> Option<ResidentMemory> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(ResidentMemory { now: field(&status, "VmRSS:")?, peak: field(&status, "VmHWM:")? })
}

/// Bytes that can be allocated without swapping, the container's limit included; `None` where the system does not say.
fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let available = field(&meminfo, "MemAvailable:")?;
    Some(cgroup_headroom().map_or(available, |headroom| headroom.min(available)))
}

/// Of the free memory, one part in this many is left to the rest of the machine.
const FREE_MARGIN: u64 = 4;

/// Bytes that a KV cache in host memory may take by default; `None` where the system does not say. Pages that nothing has been written to take no
/// memory.
pub(super) fn host_kv_memory() -> Option<u64> {
    available_memory().map(|bytes| bytes - bytes / FREE_MARGIN)
}

/// Bytes of a line such as `VmRSS:  1234 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Limit minus use of the control group (version 2) that this process is in, when it has a limit.
fn cgroup_headroom() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).ok()?.trim().parse().ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let status = "VmPeak:\t   10 kB\nVmHWM:\t    4 kB\nVmRSS:\t    3 kB\nBroken:\n";
        assert_eq!(field(status, "VmHWM:"), Some(4096));
        assert_eq!(field(status, "VmRSS:"), Some(3072));
        assert_eq!(field(status, "Broken:"), None);
        assert_eq!(field(status, "Missing:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_in_use_counts() {
        let before = resident_memory().unwrap();
        let used = vec![1u8; 64 << 20];
        let after = resident_memory().unwrap();
        assert!(after.peak >= before.now + used.len() as u64 / 2, "{before:?}, {after:?}");
    }
}
