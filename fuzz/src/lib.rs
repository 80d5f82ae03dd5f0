//! What fuzz targets share.

#![allow(clippy::unwrap_used, missing_docs, reason = "a finding is a panic")]

mod filter;

use std::fmt::Display;
use std::sync::OnceLock;

pub use filter::check_filter;
use netlaunch::nwfilter::{Filters, parse, stock, stock_names};

pub const UUID: &str = "3e3fce45-4f53-4fa7-bb32-11f34168b82b";

/// The filters that are compiled in, and one that the tests' `everything.xml` refers to.
pub fn filters() -> Filters {
    // Read once: a target asks for every input.
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

/// What a user is told is one line.
///
/// # Panics
/// When it is not.
pub fn in_one_line(text: &dyn Display) {
    let text = text.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}
