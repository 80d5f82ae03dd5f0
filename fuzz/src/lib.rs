//! Shares code between the fuzz targets.

#![allow(clippy::unwrap_used, missing_docs, reason = "a finding is a panic")]

mod filter;

use std::fmt::Display;
use std::sync::OnceLock;

pub use filter::check_filter;
use netlaunch::nwfilter::{Filters, parse, stock, stock_names};

pub const UUID: &str = "3e3fce45-4f53-4fa7-bb32-11f34168b82b";

/// Returns the built-in filters, and one more that the tests' `everything.xml` refers to.
pub fn filters() -> Filters {
    // Parsed once, because the targets call this function for every input.
    static FILTERS: OnceLock<Filters> = OnceLock::new();
    const SERVER: &[u8] = b"<filter name='server'><rule action='accept' direction='in'>\
        <tcp dstportstart='$PORT'/></rule></filter>";
    let read = || {
        let server = parse(SERVER, Some(UUID.parse().unwrap())).unwrap();
        let stock = stock_names().map(|name| stock(&name).unwrap().unwrap());
        stock.chain([server]).map(|filter| (filter.name.clone(), filter)).collect()
    };
    FILTERS.get_or_init(read).clone()
}

/// Checks that a message for the user is one line.
///
/// # Panics
/// Panics if the text is empty or has control characters.
pub fn in_one_line(text: &dyn Display) {
    let text = text.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}
