//! Copies the arguments of the process from the array that the C library passes to `main`.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// Returns the arguments of `main`, the program's name first.
///
/// `std::env::args_os` knows the arguments only with glibc, whose start-up code passes them to
/// initialisers. With musl it is empty in a program that has its own C `main`.
///
/// # Safety
/// `argv` must point to `argc` pointers, each of them null or to a string that ends with a NUL byte
/// (C17, 5.1.2.2.1). A null pointer ends the array early.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for index in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: by the caller's promise `argv` has `argc` elements, and `index` is below that.
        let argument = unsafe { *argv.add(index) };
        if argument.is_null() {
            break;
        }
        // SAFETY: the pointer is not null, and by the caller's promise it points to a string that
        // ends with a NUL byte.
        let bytes = unsafe { CStr::from_ptr(argument) }.to_bytes();
        arguments.push(OsString::from_vec(bytes.to_vec()));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::ptr::null;

    use super::*;

    #[test]
    fn arguments_are_copied_byte_by_byte_up_to_a_null_pointer() {
        let argv = [c"netlaunch".as_ptr(), c"-name=\xff".as_ptr(), null(), c"never".as_ptr()];
        for (argc, expected) in [
            (0, vec![]),
            (-1, vec![]),
            (1, vec![&b"netlaunch"[..]]),
            (4, vec![&b"netlaunch"[..], b"-name=\xff"]),
        ] {
            // SAFETY: the array has four elements, and each string ends with a NUL byte.
            let arguments = unsafe { arguments(argc, argv.as_ptr()) };
            let bytes: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
            assert_eq!(bytes, expected, "{argc}");
        }
    }
}
