//! Malicious files are refused, and no code in them runs.

use rand::Rng;
use std::path::Path;
use zip::CompressionMethod;

use super::torch_file::{ARGS, Archive, Described, Pickle, encode, import, with};
use canet_testing::rng;

#[test]
fn pickles_that_ask_for_more_than_tensors_are_refused() {
    let os_system = Pickle::new().op(b"cos\nsystem\n(").text("touch owned").op(b"tR.").0;
    let builtin = Pickle::new().op(b"c__builtin__\neval\n(").text("1").op(b"tR.").0;
    let long_storage = Pickle::new().op(b"ctorch\nLongStorage\n.").0;
    let far_memo = Pickle::new().op(b"}r\xff\xff\xff\xff.").0;
    let no_memo = Pickle::new().op(b"j\x07\x00\x00\x00.").0;
    let long_text = Pickle::new().op(b"X\xff\xff\xff\xffabc").0;
    let long_integer = Pickle::new().op(b"\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.").0;
    let hooks = Pickle::new().op(b"ctorch._utils\n_rebuild_tensor_v2\n(}tR.").0;
    let state = Pickle::new().op(b"}}").text("__class__").op(b"}sb.").0;
    let no_tensor = Pickle::new().op(b"}").text("backbone.token.weight").op(b"Ns.").0;
    let not_called = Pickle::new().op(b"ccollections\nOrderedDict\n.").0;
    let below_the_mark = Pickle::new().op(b"K\x01(\x85.").0;
    let list: [(Vec<u8>, &str); 22] = [
        (os_system, "global `os.system` is not allowed"),
        (builtin, "global `__builtin__.eval` is not allowed"),
        (long_storage, "global `torch.LongStorage` is not allowed"),
        (far_memo, "memo entry 4294967295 at byte 3"),
        (no_memo, "memo entry 7 at byte 2"),
        (long_text, "cut or has bytes after its end"),
        (long_integer, "LONG1 at byte 2 has operands"),
        (hooks, "REDUCE at byte"),
        (state, "BUILD at byte"),
        (no_tensor, "entry `backbone.token.weight` is not a tensor"),
        (not_called, "STOP at byte"),
        (below_the_mark, "TUPLE at byte 5"),
        (b"\x80\x04.".to_vec(), "pickle protocol 4"),
        (b"\x80\x02\x93.".to_vec(), "opcode 0x93 at byte 2"),
        (b"\x80\x02i".to_vec(), "opcode 0x69 at byte 2"),
        (b"\x80\x02}.}".to_vec(), "cut or has bytes after its end (at byte 4)"),
        (Vec::new(), "cut or has bytes after its end"),
        (b"\x80\x02s.".to_vec(), "SETITEM at byte 2"),
        (b"\x80\x02u.".to_vec(), "SETITEMS at byte 2"),
        (b"\x80\x02R.".to_vec(), "REDUCE at byte 2"),
        (b"\x80\x02)Q.".to_vec(), "BINPERSID at byte 3"),
        (b"\x80\x02}}.".to_vec(), "STOP at byte"),
    ];
    for (pickle, message) in list {
        let error = Archive::with_pickle(pickle).import().unwrap_err().to_string();
        assert!(error.contains("state_dict.pt: refused: ") && error.contains(message), "{message}: {error}");
    }
    assert!(!Path::new("owned").exists());
}

/// A million nested tuples cause neither recursion nor unbounded memory.
#[test]
fn deep_pickles_do_not_overflow_the_stack() {
    let mut pickle = Pickle::new().op(b")").0;
    pickle.extend(std::iter::repeat_n(0x85, 1 << 20));
    pickle.push(b'.');
    let error = Archive::with_pickle(pickle).import().unwrap_err().to_string();
    assert!(error.contains("STOP at byte"), "{error}");
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    const NAME: &str = "backbone.output.layer.weight";
    type Edit = fn(&mut Described);
    let table: [(Edit, &str); 8] = [
        (|tensor| tensor.offset = 1, "REDUCE at byte"),
        (|tensor| tensor.stride = vec![3, 1], "REDUCE at byte"),
        (|tensor| tensor.stride = vec![1 << 30, 1 << 30], "REDUCE at byte"),
        (|tensor| tensor.shape = vec![1 << 30, 1 << 30], "REDUCE at byte"),
        (|tensor| tensor.stride = vec![1], "REDUCE at byte"),
        (|tensor| tensor.count = 13, "`backbone.output.layer.weight` has a storage of another size"),
        (|tensor| tensor.count = 1 << 30, "`backbone.output.layer.weight` has a storage of 4294967296 bytes"),
        (|tensor| tensor.key = "../data.pkl".to_owned(), "entry model/data/../data.pkl, which cannot be read"),
    ];
    for (edit, message) in table {
        let pickle = Pickle::state_dict(&with(NAME, edit));
        let error = Archive::with_pickle(pickle).import().unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn archives_that_are_none_are_refused() {
    let whole = Archive::valid("FloatStorage").bytes();
    let nan = {
        let mut archive = Archive::valid("FloatStorage");
        archive.storages.insert("0".to_owned(), encode("FloatStorage", &[f32::NAN; 21]));
        archive.bytes()
    };
    let big = Archive { byte_order: "big", ..Archive::valid("FloatStorage") }.bytes();
    let huge_pickle = Archive { compression: CompressionMethod::Deflated, ..Archive::with_pickle(vec![b')'; 5 << 20]) };
    for (bytes, message) in [
        (whole[..whole.len() / 2].to_vec(), "copy it again"),
        (b"not an archive".to_vec(), "neither a zip archive of torch.save nor safetensors"),
        (Vec::new(), "neither a zip archive"),
        (nan, "`backbone.token.weight` holds NaN at place 0"),
        (big, "not written in little-endian order"),
        (huge_pickle.bytes(), "longer than 4194304 bytes"),
    ] {
        let error = import(&bytes, ARGS).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

/// Changed bytes give a model or an error, never a panic.
#[test]
fn no_changed_byte_panics() {
    let whole = Archive::valid("HalfStorage").bytes();
    let mut rng = rng(9);
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..rng.gen_range(1..4) {
            // Half of the changes hit the zip directory at the end.
            let from = if rng.gen_bool(0.5) { bytes.len().saturating_sub(4500) } else { 0 };
            let place = rng.gen_range(from..bytes.len());
            bytes[place] = if rng.gen_bool(0.3) { 0xff } else { rng.gen_range(0..=255) };
        }
        let _ = import(&bytes, ARGS);
    }
}
