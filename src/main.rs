//! The `netlaunch` program. All its behaviour is in the library's `cli` module.
//!
//! The entry point is C's `main`, not Rust's: Rust's own start-up code opens /dev/null for standard
//! descriptors that are closed, before other code could see that. netlaunch refuses closed
//! descriptors, because the programs that it starts would inherit the mistake.
//!
//! The program file has an ELF note with the name `netlaunch`, by which netlaunch recognises itself
//! among programs (src/cli/wrap/own_copy.rs).

#![no_main]
#![allow(unsafe_code, reason = "an entry point without Rust's start-up code is an unsafe symbol")]

use std::ffi::{c_char, c_int};

use netlaunch::cli;
use netlaunch::sys::process::{InheritedFds, arguments};

/// An ELF note (elf(5)).
#[repr(C, align(4))]
struct Note {
    name_size: u32,
    description_size: u32,
    kind: u32,
    name: [u8; 12],
    description: [u8; 4],
}

// SAFETY: linkers keep sections whose names begin with `.note`, and put them into a segment of
// notes. They have the layout of `Note`, and no code of the program writes to them.
#[unsafe(link_section = ".note.netlaunch")]
#[used]
static NOTE: Note = Note {
    name_size: 10,
    description_size: 4,
    kind: 1,
    name: *b"netlaunch\0\0\0",
    description: [1, 0, 0, 0],
};

// SAFETY: no other symbol of the program is named main.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C library calls `main` with an array of `argc` strings.
    let arguments = unsafe { arguments(argc, argv) };
    // SAFETY: `main` runs once. Up to here it has only copied strings, so the process has opened no
    // descriptor. The code that runs later takes inherited descriptors from this value alone.
    let inherited = unsafe { InheritedFds::at_start(&arguments) };
    cli::main(arguments, inherited).into()
}
