//! Formats tables for people, on a terminal at most 80 columns wide.
//!
//! If standard output is no terminal, each row is one line, so that grep finds whole values. On a
//! terminal, a table that is too wide first gets narrower gaps. Then the widest column that may
//! wrap loses one character, again and again, until the table fits. The table stays wider than 80
//! columns only if no column can be narrower. Programs read the JSON output instead.

use std::io::IsTerminal;

/// The usual width of a terminal, in characters.
const WIDTH: usize = 80;
/// The smallest width of a column whose words may be split, in characters.
///
/// It is the width of a generated launch name (`launch-` and eight characters) and of the longest
/// interface name.
const LEAST: usize = 15;

/// Formats the rows under a header, with a newline at the end.
///
/// Text in the columns `wrap` continues on the next line at a space. Text in the columns `cut` may
/// also continue within a word that is too long.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    wrap: &[usize],
    cut: &[usize],
) -> String {
    let width = if std::io::stdout().is_terminal() { WIDTH } else { usize::MAX };
    table_within(width, header, rows, wrap, cut)
}

/// Formats a table that is at most `limit` columns wide, if its text can be so narrow.
fn table_within<const N: usize>(
    limit: usize,
    header: [&str; N],
    rows: &[[String; N]],
    wrap: &[usize],
    cut: &[usize],
) -> String {
    let head = header.map(str::to_owned);
    let lines: Vec<&[String; N]> = std::iter::once(&head).chain(rows).collect();
    let widest = |column: usize, width: fn(&str) -> usize| {
        lines.iter().map(|line| width(&line[column])).max().unwrap_or(0)
    };
    let mut widths: [usize; N] = std::array::from_fn(|column| widest(column, length));
    let least: [usize; N] = std::array::from_fn(|column| {
        if cut.contains(&column) {
            widths[column].min(LEAST.max(length(header[column])))
        } else if wrap.contains(&column) {
            widest(column, |text| text.split(' ').map(length).max().unwrap_or(0))
        } else {
            widths[column]
        }
    });
    let total =
        |widths: &[usize; N], gap: usize| widths.iter().sum::<usize>() + gap * N.saturating_sub(1);
    let gap = if total(&widths, 2) <= limit { 2 } else { 1 };
    while total(&widths, gap) > limit {
        let mut wider = (0..N).filter(|column| widths[*column] > least[*column]);
        let Some(first) = wider.next() else { break };
        let widest = wider.fold(first, |a, b| if widths[b] > widths[a] { b } else { a });
        widths[widest] -= 1;
    }
    let mut text = String::new();
    for line in lines {
        let cells: [Vec<String>; N] =
            std::array::from_fn(|column| folded(&line[column], widths[column]));
        for part in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            let mut row = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let piece = cell.get(part).map_or("", String::as_str);
                row.push_str(piece);
                row.extend(std::iter::repeat_n(' ', (width + gap).saturating_sub(length(piece))));
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
    }
    text
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Splits a text into lines of at most `width` characters, at spaces and within words longer than a
/// line.
fn folded(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let used = length(&line);
        if used > 0 && used + 1 + length(word) <= width {
            line.push(' ');
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
        }
        for character in word.chars() {
            if length(&line) == width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(cells: [&str; N]) -> [String; N] {
        cells.map(str::to_owned)
    }

    #[test]
    fn long_text_wraps_in_its_column_so_that_the_table_fits_80_columns() {
        let why = "the host has no default route, from which passt takes its addresses, so far";
        let fix = "set one, name an interface with --interface, or use slirp";
        let rows = [row(["passt", "no", why, fix])];
        let text = table_within(80, ["BACKEND", "USABLE", "WHY", "FIX"], &rows, &[2, 3], &[]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let indent = text.find("WHY").unwrap();
        for line in text.lines().skip(2) {
            assert_eq!(line.find(|c| c != ' '), Some(indent), "{text}");
        }
        for word in why.split(' ').chain(fix.split(' ')) {
            assert!(text.contains(word), "{word}: {text}");
        }

        let uuid = "15b1486e-ad4b-4c7d-a27f-4e1b8f0a1c2d";
        let rows = [row(["qemu-announce-self-rarp", "stock", "mac-longer12", uuid])];
        let text = table_within(80, ["NAME", "FROM", "CHAIN", "UUID"], &rows, &[], &[0, 3]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("qemu-announce-self-rarp "), "{text}");
    }

    #[test]
    fn a_launch_with_two_ports_fits_80_columns_and_its_name_is_not_split() {
        let ports = "127.0.0.1:2222:22/tcp 127.0.0.1:8080:80/tcp";
        let name = "launch-7cqmitr4";
        let rows = [row([name, "26128", "passt/unix", "26141", "26142", "-", "10.0.2.15", ports])];
        let header = ["NAME", "PID", "BACKEND", "QEMU", "PASST", "TAP", "ADDRESS", "PORTS"];
        let text = table_within(80, header, &rows, &[7], &[0, 2]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains(name) && text.lines().count() == 3, "{text}");
    }

    #[test]
    fn a_table_that_is_not_for_a_terminal_has_one_line_for_each_row() {
        let why = "word ".repeat(40);
        let text = table_within(usize::MAX, ["A", "B"], &[row(["a", &why])], &[1], &[1]);
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_word_outside_the_cut_columns_is_not_split() {
        let long = "x".repeat(90);
        let text = table_within(80, ["A", "B"], &[row(["a", &long])], &[1], &[]);
        assert!(text.contains(&long), "{text}");
        assert_eq!(folded("ab cd", 1), ["a", "b", "c", "d"]);
        assert_eq!(folded("", 5), [""]);
    }
}
