//! Collects the settings of a command line: its options and its configuration files.
//!
//! The options are processed in their order, as QEMU does: an option of a known group adds a
//! setting, `-readconfig` adds the sections of its file at this place, and `-set` changes a setting
//! that was added before.
//!
//! Only the groups in [`GROUPS`] are read. The value of any other option has no effect here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::config_file::sections;
use super::{CommandLine, ConfigFile, Parameters};

/// The options that are read. Each has its name, its group in QEMU (which is also the name of a
/// section in a configuration file), and the key that its first parameter may omit.
const GROUPS: [(&str, &str, Option<&str>); 13] = [
    ("chardev", "chardev", Some("backend")),
    ("device", "device", Some("driver")),
    ("global", "global", None),
    ("m", "memory", Some("size")),
    ("machine", "machine", Some("type")),
    ("name", "name", Some("guest")),
    ("net", "net", Some("type")),
    ("netdev", "netdev", Some("type")),
    ("nic", "nic", Some("type")),
    ("numa", "numa", Some("type")),
    ("object", "object", Some("qom-type")),
    ("sandbox", "sandbox", Some("enable")),
    ("smp", "smp-opts", Some("cpus")),
];

/// One option, or one section of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// QEMU's name of the group, such as `netdev`.
    pub group: String,
    /// The parameters.
    pub parameters: Parameters,
    /// The caller's spelling, for messages: `-nic user` or `[netdev "n0"] of FILE`.
    pub written: String,
    /// The index of its [`Argument`](super::Argument); `None` for a section of a file.
    pub argument: Option<usize>,
    /// Whether a later `-set` changes it.
    pub changed: bool,
}

/// The settings of a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    list: Vec<Setting>,
    unreadable_files: Vec<OsString>,
}

impl Settings {
    pub(super) fn of(line: &CommandLine, files: &[ConfigFile]) -> Self {
        let mut settings = Settings::default();
        for (index, argument) in line.arguments().iter().enumerate() {
            let (Some(name), Some(value)) = (argument.name.as_deref(), line.value(argument)) else {
                continue;
            };
            match name {
                "readconfig" => match files.iter().find(|file| file.path == value) {
                    Some(file) => settings.add_file(file),
                    None => settings.unreadable_files.push(value.to_owned()),
                },
                "set" => settings.set(value.as_bytes()),
                _ => {
                    let Some((_, group, implied)) = GROUPS.iter().find(|(n, ..)| *n == name) else {
                        continue;
                    };
                    settings.list.push(Setting {
                        group: (*group).to_owned(),
                        parameters: Parameters::read(value.as_bytes(), *implied),
                        written: format!("-{name} {}", value.display()),
                        argument: Some(index),
                        changed: false,
                    });
                }
            }
        }
        settings
    }

    fn add_file(&mut self, file: &ConfigFile) {
        for (group, pairs) in sections(&file.text) {
            let mut parameters = Parameters::default();
            pairs.iter().for_each(|(key, value)| parameters.push(key, value));
            let id = parameters.get("id").map(|id| format!(" {:?}", String::from_utf8_lossy(id)));
            let written = format!("[{group}{}] of {}", id.unwrap_or_default(), file.path.display());
            let (argument, changed) = (None, false);
            self.list.push(Setting { group, parameters, written, argument, changed });
        }
    }

    /// Applies `-set GROUP.ID.KEY=VALUE`, which changes an earlier option.
    fn set(&mut self, text: &[u8]) {
        let Some(at) = text.iter().position(|byte| *byte == b'=') else { return };
        let (path, value) = (&text[..at], &text[at + 1..]);
        let mut parts = path.splitn(3, |byte| *byte == b'.');
        let (Some(group), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let is = |setting: &&mut Setting| {
            setting.group.as_bytes() == group && setting.parameters.get("id") == Some(id)
        };
        if let Some(setting) = self.list.iter_mut().find(is) {
            setting.parameters.push(key, value);
            setting.changed = true;
        }
    }

    /// Returns the settings of a group, in order.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = &Setting> {
        self.list.iter().filter(move |setting| setting.group == group)
    }

    /// Returns the parameters of all settings of a group.
    ///
    /// QEMU merges the options of some groups in this way, such as `machine` and `memory`.
    pub fn merged(&self, group: &str) -> Parameters {
        let mut merged = Parameters::default();
        self.of_group(group).for_each(|setting| merged.extend(&setting.parameters));
        merged
    }

    /// Returns the setting of this group with this id.
    pub fn find(&self, group: &str, id: &[u8]) -> Option<&Setting> {
        self.of_group(group).find(move |setting| setting.parameters.get("id") == Some(id))
    }

    /// Returns the machine type; `None` if the command line names no type.
    pub fn machine_type(&self) -> Option<String> {
        let merged = self.merged("machine");
        Some(String::from_utf8_lossy(merged.get("type")?).into_owned())
    }

    /// Returns the text before the number in a new id: a rare one if a file that is not readable
    /// may have the usual ids.
    pub fn id_stem(&self) -> &'static str {
        if self.unreadable_files.is_empty() { "net" } else { "netlaunch-net" }
    }

    /// Returns the paths of configuration files that the caller was not able to read.
    pub fn unreadable_files(&self) -> &[OsString] {
        &self.unreadable_files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(words: &[&str], files: &[(&str, &str)]) -> Settings {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let file = |(path, text): &(&str, &str)| ConfigFile {
            path: path.into(),
            text: text.as_bytes().to_vec(),
        };
        CommandLine::parse(&words).settings(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn options_files_and_set_are_applied_in_order() {
        let file = "[netdev \"n\"]\ntype = \"tap\"\n[machine]\ntype = \"pc\"\n";
        let words = [
            "-M",
            "q35,usb=on",
            "-readconfig",
            "f",
            "-readconfig",
            "g",
            "-set",
            "netdev.n.type=user",
            "-machine",
            "kernel-irqchip=off",
        ];
        let all = settings(&words, &[("f", file)]);
        assert_eq!(all.machine_type().as_deref(), Some("pc"));
        assert!(all.merged("machine").is("usb", "on"));
        assert_eq!(all.unreadable_files(), ["g"]);
        let netdev = all.find("netdev", b"n").unwrap();
        assert!(netdev.parameters.is("type", "user"));
        assert_eq!(netdev.written, "[netdev \"n\"] of f");
    }
}
