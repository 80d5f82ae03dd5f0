//! Parses the files of QEMU's `-readconfig`.
//!
//! Such a file has the form of a Git configuration: a line `[GROUP "ID"]` or `[GROUP]` starts a
//! section, and each line `KEY = "VALUE"` below adds a parameter to it. A line of any other form is
//! ignored here, because QEMU then refuses the whole file.

use std::ffi::OsString;

/// A configuration file that the caller has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// The path as it stands on the command line; [`super::CommandLine::settings`] compares it.
    pub path: OsString,
    /// The file's bytes.
    pub text: Vec<u8>,
}

/// A section: the option's group, such as `netdev`, and its parameters. The id is the parameter
/// `id`.
pub(super) type Section = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// Returns the sections of a file, in order.
pub(super) fn sections(text: &[u8]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if let Some(head) = line.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
            let (group, id) = match head.iter().position(|byte| *byte == b'"') {
                Some(at) => (&head[..at], Some(head[at + 1..].strip_suffix(b"\"").unwrap_or(b""))),
                None => (head, None),
            };
            let group = String::from_utf8_lossy(group.trim_ascii()).into_owned();
            let id = id.map(|id| (b"id".to_vec(), id.to_vec()));
            sections.push((group, id.into_iter().collect()));
        } else if let (Some((_, parameters)), Some(at)) =
            (sections.last_mut(), line.iter().position(|byte| *byte == b'='))
            && !line.starts_with(b"#")
        {
            let value = line[at + 1..].trim_ascii();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            parameters.push((line[..at].trim_ascii().to_vec(), value.to_vec()));
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_its_group_its_id_and_its_parameters() {
        let text = b"# a comment = \"x\"\n[netdev \"n 0\"]\n  type = \"user\"\n\n[memory]\nsize=\"1G\"\n# a = b\nlost\n";
        let read: Vec<_> = sections(text)
            .into_iter()
            .map(|(group, parameters)| {
                let of = |(key, value): &(Vec<u8>, Vec<u8>)| {
                    format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
                };
                (group, parameters.iter().map(of).collect::<Vec<_>>().join(";"))
            })
            .collect();
        let expected = [("netdev", "id=n 0;type=user"), ("memory", "size=1G")];
        assert_eq!(read, expected.map(|(group, text)| (group.to_owned(), text.to_owned())));
    }
}
