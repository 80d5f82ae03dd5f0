//! Lines and columns of a text.

use std::fmt;

/// A place in a text: a line and a column, both counted from 1; a column is one character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The character within the line, counted from 1.
    pub column: usize,
}

impl Position {
    /// The place of the first character.
    pub const START: Position = Position { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Turns byte offsets into places.
///
/// For offsets in ascending order it scans the text once in total, for any number of offsets and
/// any length of lines. A smaller offset restarts the scan from the beginning.
pub(super) struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    place: Position,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor { text, offset: 0, place: Position::START }
    }

    /// Returns the place of the character at `offset`.
    ///
    /// For an offset past the end, it returns the place after the last character.
    pub(super) fn place(&mut self, offset: usize) -> Position {
        if offset < self.offset {
            (self.offset, self.place) = (0, Position::START);
        }
        for (index, character) in self.text[self.offset..].char_indices() {
            if self.offset + index >= offset {
                self.offset += index;
                return self.place;
            }
            match character {
                '\n' => self.place = Position { line: self.place.line + 1, column: 1 },
                _ => self.place.column += 1,
            }
        }
        self.offset = self.text.len();
        self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_column_counts_characters_not_bytes() {
        let text = "ab\nä€c\r\n\nd";
        let mut cursor = Cursor::new(text);
        for (found, line, column) in
            [("ab", 1, 1), ("b", 1, 2), ("€", 2, 2), ("c", 2, 3), ("d", 4, 1), ("ä", 2, 1)]
        {
            let place = cursor.place(text.find(found).unwrap());
            assert_eq!((place.line, place.column), (line, column), "{found}");
        }
        assert_eq!(cursor.place(9999).to_string(), "4:2");
        assert_eq!(Cursor::new("").place(5), Position::START);
    }

    proptest! {
        #[test]
        fn offsets_in_any_order_give_the_same_places(
            text in "[a\nß]{0,20}", offsets in prop::collection::vec(0usize..50, 1..6),
        ) {
            let mut cursor = Cursor::new(&text);
            for offset in offsets {
                prop_assert_eq!(cursor.place(offset), Cursor::new(&text).place(offset));
            }
        }
    }
}
