//! Turns the pointers of C into Rust values, and values into strings that C owns.
//!
//! Each reader returns an error for NULL, so a program that forgets an argument gets a message and
//! no crash. The contracts of all other pointers are those of netlaunch.h, "Rules"; each reader
//! repeats its part.

#![allow(unsafe_code, reason = "C passes pointers")]

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::error::{self, CallError};
use super::launch::Handle;

/// Reads a string argument.
///
/// # Safety
/// The pointer is NULL, or points to a string that ends with NUL and neither changes nor is freed
/// during `'a`.
pub(super) unsafe fn bytes<'a>(pointer: *const c_char, name: &str) -> Result<&'a CStr, CallError> {
    if pointer.is_null() {
        return Err(CallError::argument(format!("{name} is NULL: pass a string")));
    }
    // SAFETY: the pointer is not NULL, so by the contract it points to a string that ends with NUL
    // and that stays as it is for as long as the result is used.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// Reads a text argument.
///
/// # Safety
/// The contract of [`bytes`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, CallError> {
    // SAFETY: this function passes its pointer on, and its caller has promised what `bytes` needs.
    let text = unsafe { bytes(pointer, name) }?;
    text.to_str().map_err(|error| CallError::argument(format!("{name} is not UTF-8: {error}")))
}

/// Reads a launch argument.
///
/// # Safety
/// The pointer is NULL, or comes from `netlaunch_start` and is not freed during `'a`.
pub(super) unsafe fn handle<'a>(launch: *const Handle) -> Result<&'a Handle, CallError> {
    // SAFETY: a pointer that is not NULL came from `Box::into_raw` in `netlaunch_start`, so it
    // points to a `Handle`. By the contract the handle lives during 'a; all functions but
    // `netlaunch_free` only share it.
    let launch = unsafe { launch.as_ref() };
    let null = || CallError::argument("launch is NULL: pass a launch that was started");
    launch.ok_or_else(null)?.own()
}

/// Writes to a result pointer, if the caller gave one.
///
/// # Safety
/// The pointer is NULL, or points to aligned memory for a `T` that this thread may write.
pub(super) unsafe fn store<T>(result: *mut T, value: impl FnOnce() -> T) {
    if !result.is_null() {
        // SAFETY: the pointer is not NULL, so the caller has promised that the memory can be
        // written. `write` neither reads nor drops the old value, which may be uninitialised.
        unsafe { result.write(value()) }
    }
}

/// Gives a value as JSON to the caller; the caller frees the string.
pub(super) fn give_json(value: &Value) -> *mut c_char {
    error::c_string(value.to_string()).into_raw()
}

/// Gives bytes of the system, which hold no NUL, to the caller; the caller frees the string.
pub(super) fn give_bytes(text: &OsStr) -> Result<*mut c_char, CallError> {
    let absent = |error| CallError::absent(format!("no C string can hold it: {error}"));
    CString::new(text.as_bytes()).map(CString::into_raw).map_err(absent)
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_bad_string_is_an_error_and_no_crash() {
        // SAFETY: the pointer is NULL.
        let null = unsafe { text(ptr::null(), "name") }.unwrap_err();
        assert!(null.message.starts_with("name is NULL"), "{null:?}");
        // SAFETY: the literal ends with NUL and lives as long as the program.
        let bytes = unsafe { text(c"\xff".as_ptr(), "name") }.unwrap_err();
        assert!(bytes.message.starts_with("name is not UTF-8"), "{bytes:?}");
    }
}
