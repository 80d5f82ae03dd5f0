//! The exported functions. include/netlaunch.h documents them for callers.
//!
//! Every function runs its work in [`call`], which catches panics and keeps the error. The caller's
//! part of each SAFETY argument is in netlaunch.h, "Rules": a string argument is NULL or ends with
//! NUL and does not change during the call; a launch argument is NULL or comes from
//! `netlaunch_start` and is not freed before the call returns; a result argument is NULL or points
//! to a variable that only this call writes meanwhile.

#![allow(unsafe_code, reason = "C passes pointers, and finds functions by unmangled names")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use super::error::{self, CallError};
use super::launch::{Handle, Waited};
use super::pointers::{bytes, give_bytes, give_json, handle, store, text};
use super::{ABI_VERSION, answer, plan};
use crate::launcher::Outcome;
use crate::types::os_text;

/// A call failed; `netlaunch_last_error` says why.
const ERROR: c_int = -1;
/// The time was up.
const TIME_UP: c_int = 0;
/// The call did its work.
const OK: c_int = 1;
/// There are no more events.
const END: c_int = 2;

/// Runs the work of a function. An error or a panic is kept, and `failed` returned.
fn call<T>(failed: T, work: impl FnOnce() -> Result<T, CallError>) -> T {
    // A panic leaves no half-made state: work changes a launch only through its own lock, which
    // survives panics, and through a channel.
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => return done,
        Ok(Err(error)) => error,
        Err(panic) => CallError::panicked(panic.as_ref()),
    };
    error::keep(&error);
    failed
}

/// Converts milliseconds as poll(2) has them: a negative number is no limit.
fn limit(milliseconds: c_int) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// The body of the three functions that wait for the end of a launch: calls `first` with the
/// launch, waits, and stores how the launch ended.
///
/// # Safety
/// The contract of [`handle`] for `launch`, and that of [`store`] for `status` and `outcome`.
unsafe fn end(
    launch: *const Handle,
    first: impl FnOnce(&Handle),
    timeout_ms: c_int,
    status: *mut c_int,
    outcome: *mut *mut c_char,
) -> c_int {
    call(ERROR, || {
        // SAFETY: the caller has promised that `outcome` is NULL or can be written.
        unsafe { store(outcome, ptr::null_mut) };
        // SAFETY: the caller has promised that `launch` is NULL or a launch that is not freed
        // before this function returns.
        let launch = unsafe { handle(launch) }?;
        first(launch);
        let ended: Outcome = match launch.wait(limit(timeout_ms)) {
            Waited::Found(ended) => ended,
            Waited::TimeUp | Waited::End => return Ok(TIME_UP),
        };
        // SAFETY: the caller has promised that `status` is NULL or can be written.
        unsafe { store(status, || ended.code().into()) };
        // SAFETY: as for the first write to `outcome`; the NULL there owns nothing.
        unsafe { store(outcome, || give_json(&answer::outcome(&ended))) };
        Ok(OK)
    })
}

// SAFETY of the names: no other symbol of a program starts with netlaunch_.

#[unsafe(no_mangle)]
extern "C" fn netlaunch_abi_version() -> u32 {
    ABI_VERSION
}

#[unsafe(no_mangle)]
extern "C" fn netlaunch_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn netlaunch_last_error() -> *const c_char {
    error::with_last(|json, _| json.as_ptr()).unwrap_or(ptr::null())
}

#[unsafe(no_mangle)]
extern "C" fn netlaunch_last_error_message() -> *const c_char {
    error::with_last(|_, message| message.as_ptr()).unwrap_or(ptr::null())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_json_text(text: *const c_char) -> *mut c_char {
    call(ptr::null_mut(), || {
        // SAFETY: `text` is a string argument of netlaunch.h, and is not used after the call.
        let text = unsafe { bytes(text, "text") }?;
        Ok(give_json(&os_text::value(OsStr::from_bytes(text.to_bytes()))))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_string_free(string: *mut c_char) {
    call((), || {
        if !string.is_null() {
            // SAFETY: netlaunch.h allows only a string that this library gave away, so it comes
            // from `CString::into_raw`, and only one call with it, so no other owner is left.
            drop(unsafe { CString::from_raw(string) });
        }
        Ok(())
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_strings_free(strings: *mut *mut c_char) {
    call((), || {
        if strings.is_null() {
            return Ok(());
        }
        let mut length = 0;
        loop {
            // SAFETY: netlaunch.h allows only an array of `netlaunch_qemu_args`, which ends with
            // NULL. All elements before this one were not NULL, so this one is in the array.
            let string = unsafe { *strings.add(length) };
            length += 1;
            if string.is_null() {
                break;
            }
            // SAFETY: `netlaunch_qemu_args` made each string with `CString::into_raw`. The caller
            // frees the array once, and this loop visits each element once.
            drop(unsafe { CString::from_raw(string) });
        }
        // SAFETY: `netlaunch_qemu_args` made the array from a boxed slice with this many elements,
        // the NULL included, and the caller frees it once. The pointers in it are not followed.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(strings, length)) });
        Ok(())
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_plan(request: *const c_char) -> *mut c_char {
    call(ptr::null_mut(), || {
        // SAFETY: `request` is a string argument of netlaunch.h. The thread that makes the plan
        // gets the parsed request, and no pointer into the string.
        let request = unsafe { text(request, "request") }?;
        Ok(give_json(&plan::plan(request)?))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_start(request: *const c_char) -> *mut Handle {
    call(ptr::null_mut(), || {
        // SAFETY: `request` is a string argument of netlaunch.h. The launch keeps copies of its
        // values, and no pointer into the string.
        let request = unsafe { text(request, "request") }?;
        Ok(Box::into_raw(Box::new(Handle::start(request)?)))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_free(launch: *mut Handle) {
    call((), || {
        if launch.is_null() {
            return Ok(());
        }
        // SAFETY: netlaunch.h allows only a launch of `netlaunch_start`, which comes from
        // `Box::into_raw`, and makes this the last call with it, so nothing else refers to it.
        let launch = unsafe { Box::from_raw(launch) };
        if launch.is_own() {
            drop(launch);
        } else {
            // The launch belongs to the process that started it.
            std::mem::forget(launch);
        }
        Ok(())
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_launch_json(launch: *const Handle) -> *mut c_char {
    call(ptr::null_mut(), || {
        // SAFETY: `launch` is a launch argument of netlaunch.h; the result is a copy.
        let launch = unsafe { handle(launch) }?;
        Ok(give_json(&launch.record()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_plan_json(launch: *const Handle) -> *mut c_char {
    call(ptr::null_mut(), || {
        // SAFETY: `launch` is a launch argument of netlaunch.h; the result is a copy.
        let launch = unsafe { handle(launch) }?;
        Ok(give_json(&launch.plan()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_qemu_args(launch: *const Handle) -> *mut *mut c_char {
    call(ptr::null_mut(), || {
        // SAFETY: `launch` is a launch argument of netlaunch.h; the result has copies of the
        // arguments.
        let launch = unsafe { handle(launch) }?;
        let strings = launch.qemu_args().iter().map(|arg| CString::new(arg.as_bytes()));
        let strings: Result<Vec<CString>, _> = strings.collect();
        let absent =
            |error| CallError::absent(format!("no C string can hold an argument: {error}"));
        let strings = strings.map_err(absent)?.into_iter();
        let mut array: Vec<*mut c_char> = strings.map(CString::into_raw).collect();
        array.push(ptr::null_mut());
        Ok(Box::into_raw(array.into_boxed_slice()).cast())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_path(launch: *const Handle, name: *const c_char) -> *mut c_char {
    call(ptr::null_mut(), || {
        // SAFETY: `launch` is a launch argument of netlaunch.h; the result is a copy.
        let launch = unsafe { handle(launch) }?;
        // SAFETY: `name` is a string argument of netlaunch.h, and is not used after the call.
        let name = unsafe { text(name, "name") }?;
        give_bytes(launch.path(name)?)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_event_fd(launch: *const Handle) -> c_int {
    call(ERROR, || {
        // SAFETY: `launch` is a launch argument of netlaunch.h; the result is a number.
        let launch = unsafe { handle(launch) }?;
        Ok(launch.event_fd())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_next_event(
    launch: *const Handle,
    timeout_ms: c_int,
    event: *mut *mut c_char,
) -> c_int {
    call(ERROR, || {
        // SAFETY: `event` is a result argument of netlaunch.h.
        unsafe { store(event, ptr::null_mut) };
        // SAFETY: `launch` is a launch argument of netlaunch.h, and is used in this call only.
        let launch = unsafe { handle(launch) }?;
        Ok(match launch.next_event(limit(timeout_ms)) {
            Waited::Found(happened) => {
                // SAFETY: `event` is a result argument of netlaunch.h; the NULL there owns nothing.
                unsafe { store(event, || give_json(&happened)) };
                OK
            }
            Waited::TimeUp => TIME_UP,
            Waited::End => END,
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_wait(
    launch: *const Handle,
    timeout_ms: c_int,
    status: *mut c_int,
    outcome: *mut *mut c_char,
) -> c_int {
    // SAFETY: `launch` is a launch argument of netlaunch.h, and `status` and `outcome` are result
    // arguments.
    unsafe { end(launch, |_| (), timeout_ms, status, outcome) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_stop(
    launch: *const Handle,
    timeout_ms: c_int,
    status: *mut c_int,
    outcome: *mut *mut c_char,
) -> c_int {
    // SAFETY: `launch` is a launch argument of netlaunch.h, and `status` and `outcome` are result
    // arguments.
    unsafe { end(launch, Handle::stop, timeout_ms, status, outcome) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_kill(
    launch: *const Handle,
    timeout_ms: c_int,
    status: *mut c_int,
    outcome: *mut *mut c_char,
) -> c_int {
    // SAFETY: `launch` is a launch argument of netlaunch.h, and `status` and `outcome` are result
    // arguments.
    unsafe { end(launch, Handle::kill, timeout_ms, status, outcome) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netlaunch_signal(launch: *const Handle, number: c_int) -> c_int {
    call(ERROR, || {
        // SAFETY: `launch` is a launch argument of netlaunch.h, and is used in this call only.
        unsafe { handle(launch) }?.signal(number)?;
        Ok(OK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> String {
        let text = |_: &CStr, message: &CStr| message.to_string_lossy().into_owned();
        error::with_last(text).unwrap_or_default()
    }

    #[test]
    fn a_panic_does_not_leave_the_function() {
        let result =
            call(ERROR, || -> Result<c_int, CallError> { panic!("a defect for the test") });
        assert_eq!(result, ERROR);
        assert!(message().ends_with("a defect for the test"), "{}", message());
        let kind = error::with_last(|json, _| json.to_string_lossy().contains("\"internal\""));
        assert_eq!(kind, Some(true));
    }
}
