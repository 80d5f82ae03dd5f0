//! The C interface: `libnetlaunch.so`, `libnetlaunch.a` and `netlaunch.h`.
//!
//! A request comes as JSON text ([`request`]), answers go back as JSON text ([`answer`]): the plan
//! as `netlaunch --print=json` has it, and the launch as `netlaunch ps --json` has it. A started
//! launch is a pointer to a [`launch::Handle`], which stands on
//! [`BlockingLaunch`](crate::launcher::BlockingLaunch): its one thread drives the launch. A plan is
//! made in such a thread too ([`plan`]). So no tokio runtime ever runs in a thread of the caller.
//!
//! [`ffi`] has the exported functions. Each turns its pointers into Rust values ([`pointers`]),
//! calls safe code, and catches panics; an error stays in the thread for `netlaunch_last_error`
//! ([`error`]). include/netlaunch.h documents the functions for callers, and the schemas
//! conf/schema/capi-*.schema.json describe the JSON; tests/integration/capi.rs and capi_json.rs
//! compare them with the library.
//!
//! # Build
//!
//! ```text
//! cargo rustc --release --lib --no-default-features --features capi \
//!     --crate-type cdylib,staticlib -- -Clink-arg=-Wl,-soname,libnetlaunch.so.0
//! ```
//!
//! The crate type is not in Cargo.toml: every build of the program would link both libraries too.

mod answer;
mod error;
mod ffi;
mod launch;
mod members;
mod plan;
mod pointers;
mod request;
#[cfg(test)]
#[path = "../../tests/integration/common/schema.rs"]
mod schema;

/// The version of the functions in netlaunch.h, as in the name of the library. It increases when a
/// function is removed or changes its meaning.
const ABI_VERSION: u32 = 0;
