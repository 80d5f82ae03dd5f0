//! An error and its sources as one line.

use std::error::Error;

/// Returns the text of an error, followed by the texts of its sources.
///
/// The errors of this crate do not repeat their sources. An error of another crate may; a source
/// whose text is part of the line already is left out.
///
/// ```
/// use netlaunch::types::error_text;
///
/// let error = "no address".parse::<netlaunch::types::Mac>().unwrap_err();
/// assert!(error_text(&error).contains("no address"));
/// ```
pub fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let of_source = source.to_string();
        if !text.contains(&of_source) {
            text.push_str(": ");
            text.push_str(&of_source);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot open the door")]
        Short(#[source] std::fmt::Error),
        #[error("cannot open the door: {0}")]
        Long(#[source] std::fmt::Error),
    }

    #[test]
    fn each_text_occurs_once() {
        let line = format!("cannot open the door: {}", std::fmt::Error);
        for error in [Outer::Short(std::fmt::Error), Outer::Long(std::fmt::Error)] {
            assert_eq!(error_text(&error), line);
        }
    }
}
