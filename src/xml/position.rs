//! Lines and columns.

use std::fmt;

/// A place in a text: line and column, both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character of the line.
    pub column: usize,
}

impl Place {
    /// The first character.
    pub const START: Place = Place { line: 1, column: 1 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Turns byte offsets into places. Offsets that come in ascending order cost one pass over the text
/// altogether, however many there are and however long its lines.
pub(super) struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    place: Place,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor { text, offset: 0, place: Place::START }
    }

    /// The place of the character at `offset`; past the end, the place after the last character.
    pub(super) fn place(&mut self, offset: usize) -> Place {
        if offset < self.offset {
            (self.offset, self.place) = (0, Place::START);
        }
        for (index, character) in self.text[self.offset..].char_indices() {
            if self.offset + index >= offset {
                self.offset += index;
                return self.place;
            }
            match character {
                '\n' => self.place = Place { line: self.place.line + 1, column: 1 },
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
    fn columns_are_characters() {
        let text = "ab\nä€c\r\n\nd";
        let mut cursor = Cursor::new(text);
        for (found, line, column) in
            [("ab", 1, 1), ("b", 1, 2), ("€", 2, 2), ("c", 2, 3), ("d", 4, 1), ("ä", 2, 1)]
        {
            let place = cursor.place(text.find(found).unwrap());
            assert_eq!((place.line, place.column), (line, column), "{found}");
        }
        assert_eq!(cursor.place(9999).to_string(), "4:2");
        assert_eq!(Cursor::new("").place(5), Place::START);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(text in "[a\nß]{0,20}", offsets in prop::collection::vec(0usize..50, 1..6)) {
            let mut cursor = Cursor::new(&text);
            for offset in offsets {
                prop_assert_eq!(cursor.place(offset), Cursor::new(&text).place(offset));
            }
        }
    }
}
