//! The errors of calls, and the last one of each thread.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

use serde_json::json;

use crate::launcher::LaunchError;
use crate::types::error_text;

/// The version of the JSON form of an error.
const ERROR_VERSION: u32 = 1;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallError {
    /// A name for programs: one of [`LaunchErrorKind::name`](crate::launcher::LaunchErrorKind), or
    /// one of the names below.
    pub(super) kind: &'static str,
    /// One line for people.
    pub(super) message: String,
}

impl CallError {
    /// An argument of the function cannot be used.
    pub(super) fn argument(message: impl Into<String>) -> Self {
        CallError { kind: "invalid-argument", message: message.into() }
    }

    /// The request cannot be used.
    pub(super) fn request(message: impl Into<String>) -> Self {
        CallError { kind: "invalid-request", message: message.into() }
    }

    /// The launch has no such thing, such as a socket with slirp.
    pub(super) fn absent(message: impl Into<String>) -> Self {
        CallError { kind: "absent", message: message.into() }
    }

    /// The process is a fork of the one that started the launch.
    pub(super) fn forked() -> Self {
        let message = "another process started this launch: use it there, or start one here";
        CallError { kind: "forked", message: message.to_owned() }
    }

    /// The library has panicked.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let message = format!("netlaunch has a defect, please report it: {text}");
        CallError { kind: "internal", message }
    }
}

impl From<LaunchError> for CallError {
    fn from(error: LaunchError) -> Self {
        CallError { kind: error.kind().name(), message: error_text(&error) }
    }
}

/// The last error of a thread, as C strings that stay valid until the next one.
#[derive(Debug)]
struct LastError {
    json: CString,
    message: CString,
}

thread_local! {
    // A static, since C has no other place for an error that each function can leave.
    static LAST: RefCell<Option<LastError>> = const { RefCell::new(None) };
}

/// Keeps the error for this thread.
pub(super) fn keep(error: &CallError) {
    let json = json!({
        "version": ERROR_VERSION,
        "kind": error.kind,
        "message": error.message,
    });
    let last =
        LastError { json: c_string(json.to_string()), message: c_string(error.message.clone()) };
    // A thread that ends, and has destroyed its last error already, keeps none.
    let _ = LAST.try_with(|kept| kept.replace(Some(last)));
}

/// Calls `with` with this thread's last error as JSON and as a message; `None` without one.
pub(super) fn with_last<T>(with: impl FnOnce(&CStr, &CStr) -> T) -> Option<T> {
    let called = LAST.try_with(|kept| {
        let kept = kept.borrow();
        kept.as_ref().map(|last| with(&last.json, &last.message))
    });
    called.ok().flatten()
}

/// Returns the text as a C string; a NUL in it, which no message needs, becomes U+FFFD.
pub(super) fn c_string(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let bytes = error.into_vec();
        let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
        CString::new(text).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own_last_error() {
        assert_eq!(with_last(|_, _| ()), None);
        keep(&CallError::argument("a \"b\"\0c"));
        let texts = |json: &CStr, message: &CStr| (json.to_owned(), message.to_owned());
        let (json, message) = with_last(texts).unwrap();
        assert_eq!(message.to_str().unwrap(), "a \"b\"\u{fffd}c");
        let json: serde_json::Value = serde_json::from_slice(json.to_bytes()).unwrap();
        assert_eq!(json["kind"], "invalid-argument");
        let other = std::thread::spawn(|| with_last(|_, _| ()));
        assert_eq!(other.join().unwrap(), None);
    }

    #[test]
    fn the_schema_and_the_header_name_every_kind_of_a_launch_error() {
        let schema = include_str!("../../conf/schema/capi-error.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let kinds = schema["properties"]["kind"]["examples"].as_array().unwrap();
        // The arms of `LaunchErrorKind::name`.
        let names = include_str!("../launcher/error.rs").lines().filter_map(|line| {
            let name = line.trim().strip_prefix("LaunchErrorKind::")?.split_once(" => \"")?.1;
            name.strip_suffix("\",")
        });
        let names: Vec<_> = names.collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(kinds.iter().any(|kind| kind == name), "{name}");
        }
        // The header lists the same ones, as words before their explanations.
        let header = include_str!("../../include/netlaunch.h");
        let list = header.split_once("KIND is for programs:").unwrap().1;
        let list = list.split_once("New kinds can appear.").unwrap().0;
        let words: Vec<_> = list.split([' ', ',', '\t', '\n']).collect();
        for kind in kinds {
            assert!(words.contains(&kind.as_str().unwrap()), "{kind} is not in netlaunch.h");
        }
    }

    #[test]
    fn a_panic_is_an_internal_error_with_its_message() {
        let panic: Box<dyn Any + Send> = Box::new("lost".to_owned());
        let error = CallError::panicked(panic.as_ref());
        assert_eq!(error.kind, "internal");
        assert!(error.message.ends_with(": lost"), "{error:?}");
    }
}
