//! The `netlaunch` program; everything is in the library's `cli` module.
//!
//! The entry point is C's `main`, not Rust's: Rust's own would open /dev/null for standard
//! descriptors that are closed before anyone could notice, and netlaunch has to refuse them, since
//! the programs it starts would inherit the mistake.

#![no_main]

use netlaunch::cli;
use netlaunch::process::inherited;

/// Called by the C library, which has handed the arguments to Rust's standard library as well.
// SAFETY: no other symbol of the program is named main.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: i32, _argv: *const *const i8) -> i32 {
    let closed = inherited::closed_standard();
    let free_fd = inherited::first_free();
    cli::main(std::env::args_os(), closed, free_fd).into()
}
