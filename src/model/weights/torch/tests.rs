//! Real `torch.save` files, hand-written pickles, and mutations of both.

use std::io::{Cursor, Write};
use std::path::Path;

use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;
use crate::error::ErrorKind;

fn data(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch");
    std::fs::read(root.join(name).join("pytorch_model.bin")).unwrap()
}

/// An archive with these entries below `m/`.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in entries {
        writer.start_file(format!("m/{name}"), options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A pickle of `{"w": _rebuild_tensor_v2(storage "0", offset 0, (2,), (1,))}` over a storage of `len` f32 elements.
fn pickle_of_one(len: u8) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK".to_vec();
    pickle.push(len);
    pickle.extend(b"tQK\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.");
    pickle
}

fn check_error(file: &[u8], kind: ErrorKind, message: &str) {
    let error = read_tensors(file).unwrap_err();
    assert!(error.to_line().contains(message), "{message}: {}", error.to_line());
    assert_eq!(error.kind(), kind, "{message}: {}", error.to_line());
}

#[test]
fn other_formats_of_torch_are_named() {
    check_error(&data("legacy"), ErrorKind::Unsupported, "before 1.6");
    check_error(&data("code"), ErrorKind::Unsupported, "posix.system");
    check_error(b"not torch", ErrorKind::InvalidData, "not a zip archive");
    let pickle = pickle_of_one(2);
    let entries = |extra: &[(&'static str, &'static [u8])]| {
        let mut entries: Vec<(&str, &[u8])> = vec![("data.pkl", &pickle), ("data/0", &[0; 8])];
        entries.extend(extra);
        archive(&entries)
    };
    assert_eq!(read_tensors(&entries(&[("byteorder", b"little")])).unwrap().len(), 1);
    check_error(&entries(&[("byteorder", b"big")]), ErrorKind::Unsupported, "expected little, got big");
    check_error(&entries(&[("constants.pkl", b"")]), ErrorKind::Unsupported, "TorchScript");
    check_error(&entries(&[("more/data.pkl", b"")]), ErrorKind::InvalidData, "more than one data.pkl");
    check_error(&archive(&[("version", b"3")]), ErrorKind::InvalidData, "no data.pkl");
}

#[test]
fn storages_that_lie_are_refused() {
    let check = |len: u8, content: &[u8], message: &str| {
        let file = archive(&[("data.pkl", &pickle_of_one(len)), ("data/0", content)]);
        check_error(&file, ErrorKind::InvalidData, message);
    };
    check(1, &[0; 4], "tensor `w` is not valid: the tensor reaches beyond its storage");
    check(2, &[0; 7], "shorter than the pickle says");
    check(200, &[0; 8], "shorter than the pickle says");
    let file = archive(&[("data.pkl", &pickle_of_one(2)), ("data/1", &[0; 8])]);
    check_error(&file, ErrorKind::InvalidData, "lacks the storage `m/data/0`");
}

#[test]
fn pickles_that_are_not_data_are_refused() {
    let check = |pickle: &[u8], kind: ErrorKind, message: &str| {
        check_error(&archive(&[("data.pkl", pickle)]), kind, message);
    };
    use ErrorKind::{InvalidData, Unsupported};
    check(b"", InvalidData, "ends in the middle");
    check(b"}", InvalidData, "ends in the middle");
    check(b"}.", InvalidData, "no tensors");
    check(b"N.", InvalidData, "does not hold a dictionary");
    check(b"}NNs.", InvalidData, "is not text");
    check(b"cos\nsystem\n(X\x02\0\0\0lstR.", Unsupported, "`os.system`");
    check(b"X\x02\0\0\0osX\x06\0\0\0system\x93.", Unsupported, "`os.system`");
    check(b"(X\x02\0\0\0lsios\nsystem\n.", Unsupported, "opcode 0x69");
    check(b")\x81.", Unsupported, "opcode 0x81");
    check(b"ctorch\nSize\nN\x85Nb.", Unsupported, "sets attributes");
    check(b"ccollections\nOrderedDict\nN\x85R.", InvalidData, "other arguments");
    check(b"NNR.", InvalidData, "no function");
    check(b"(0.", InvalidData, "not there");
    check(b"t.", InvalidData, "mark that is not there");
    check(b"h\x07.", InvalidData, "recalls value 7");
    check(b"Na.", InvalidData, "no list");
    check(b"NNa.", InvalidData, "no list");
    check(b"}(Nu.", InvalidData, "key without a value");
    check(b"X\xff\xff\xff\xffw.", InvalidData, "ends in the middle");
    check(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffw.", InvalidData, "ends in the middle");
    check(b"\x8a\x09123456789.", InvalidData, "larger than 64 bits");
    check(b"ctorch", InvalidData, "no end");
    check(b"X\x01\0\0\0\xff.", InvalidData, "not UTF-8");
    let negative = [&pickle_of_one(2)[..], b""].concat();
    let at = negative.windows(2).position(|it| it == b"K\x02").unwrap();
    let negative = [&negative[..at], b"J\xff\xff\xff\xff", &negative[at + 2..]].concat();
    check(&negative, InvalidData, "negative");
}

#[test]
fn deep_and_repeated_structures_cost_no_stack_and_bounded_memory() {
    // A tuple in a tuple in a tuple, a million deep.
    let deep = [&b"N"[..], &vec![0x85; 1_000_000], b"."].concat();
    check_error(&archive(&[("data.pkl", &deep)]), ErrorKind::InvalidData, "does not hold a dictionary");
    // A list of a thousand pairs that is copied into a new dictionary over and over.
    let mut copies = b"](NN\x86q\x01".to_vec();
    copies.extend(b"h\x01".repeat(1000));
    copies.extend(b"e\x85q\x020ccollections\nOrderedDict\nq\x03");
    copies.extend(b"0h\x03h\x02R".repeat(100_000));
    check_error(&archive(&[("data.pkl", &copies)]), ErrorKind::InvalidData, "too many values");
    // A value that doubles.
    let values = [&b"N"[..], &b"2".repeat(5 << 20)].concat();
    check_error(&archive(&[("data.pkl", &values)]), ErrorKind::InvalidData, "too many values");
}

proptest! {
    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        protocol4 in any::<bool>(),
    ) {
        let mut file = data(if protocol4 { "protocol4" } else { "views" });
        // Two of three edits land in the pickle, which is at the front.
        for (i, (at, byte)) in edits.into_iter().enumerate() {
            let at = at.index(if i % 3 == 2 { file.len() } else { file.len().min(2700) });
            file[at] = byte;
        }
        file.truncate(keep.index(4 * file.len()).max(1));
        if let Ok(tensors) = read_tensors(&file) {
            for (name, tensor) in tensors {
                if let StoredTensor::Readable(tensor) = tensor {
                    let read = tensor.read(&file);
                    prop_assert!(read.is_ok_and(|read| read.bytes().len() <= file.len()), "{name}");
                }
            }
        }
    }

    #[test]
    fn random_opcodes_never_panic(
        body in prop::collection::vec(
            prop::sample::select(vec![
                &b"N"[..], b"(", b"0", b"1", b"2", b"K\x03", b"J\xff\xff\xff\xff", b"X\x01\0\0\0w", b")", b"\x85", b"\x86", b"\x87",
                b"t", b"]", b"a", b"e", b"}", b"s", b"u", b"q\0", b"h\0", b"\x94", b"Q", b"R", b"b", b"U\x07storage",
                b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nFloatStorage\n",
                b"ccollections\nOrderedDict\n", b"\x93", b"\x8a\x01\x80",
            ]),
            0..60,
        ),
    ) {
        let mut pickle = body.concat();
        pickle.push(b'.');
        let _ = read_tensors(&archive(&[("data.pkl", &pickle), ("data/0", &[0; 64])]));
    }
}
