//! An error and its sources as one line.

use std::error::Error;

/// Separates the failure from the advice in the text of an error: `what failed; what to do`.
const ADVICE: &str = "; ";

/// Returns the text of an error with the texts of its sources: `what failed: why; what to do`.
///
/// The errors of this crate do not repeat their sources. If the text of an error ends with an
/// advice, the source comes before the advice. An error of another crate may repeat its source: a
/// source whose text is part of the text already is left out.
///
/// ```
/// use netlaunch::types::error_text;
///
/// let error = "no address".parse::<netlaunch::types::Mac>().unwrap_err();
/// assert!(error_text(&error).contains("no address"));
/// ```
pub fn error_text(error: &dyn Error) -> String {
    let text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = error_text(source);
        if text.contains(&cause) {
            return text;
        }
        if !text.contains(&source.to_string()) {
            return with_cause(&text, &cause);
        }
        next = source.source();
    }
    text
}

/// Inserts the cause of a failure before the advice.
fn with_cause(text: &str, cause: &str) -> String {
    match text.split_once(ADVICE) {
        Some((failure, advice)) => format!("{failure}: {cause}{ADVICE}{advice}"),
        None => format!("{text}: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot open the door")]
        Short(#[source] fmt::Error),
        #[error("cannot open the door: {0}")]
        Long(#[source] fmt::Error),
        #[error("cannot open the door; use the key; or the bell")]
        Advice(#[source] fmt::Error),
        #[error("cannot enter; wait")]
        Nested(#[source] Box<Outer>),
        #[error(transparent)]
        Same(Box<Outer>),
        #[error("{}; or knock", error_text(.0))]
        Whole(#[source] Box<Outer>),
    }

    #[test]
    fn each_text_occurs_once_and_the_cause_is_before_the_advice() {
        use Outer::{Advice, Long, Nested, Same, Short, Whole};
        let why = fmt::Error.to_string();
        let advice = format!("cannot open the door: {why}; use the key; or the bell");
        for (error, expected) in [
            (Short(fmt::Error), format!("cannot open the door: {why}")),
            (Long(fmt::Error), format!("cannot open the door: {why}")),
            (Advice(fmt::Error), advice.clone()),
            (Same(Advice(fmt::Error).into()), advice.clone()),
            (Whole(Advice(fmt::Error).into()), format!("{advice}; or knock")),
            (Nested(Advice(fmt::Error).into()), format!("cannot enter: {advice}; wait")),
            (
                Nested(Long(fmt::Error).into()),
                format!("cannot enter: cannot open the door: {why}; wait"),
            ),
        ] {
            assert_eq!(error_text(&error), expected);
        }
    }
}
