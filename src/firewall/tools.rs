//! The firewall's programs: where they are, how they are run, what they say when they refuse.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::Problem;
use crate::probe::program::{Lookup, find};
use crate::process::capture_holding;
use crate::rules::Version;

/// The longest a tool may take; waiting for iptables' lock is part of it.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `nft`.
    pub nft: Lookup,
    /// `iptables-save`.
    pub iptables_save: Lookup,
    /// `iptables-restore`.
    pub iptables_restore: Lookup,
    /// `ip6tables-save`.
    pub ip6tables_save: Lookup,
    /// `ip6tables-restore`.
    pub ip6tables_restore: Lookup,
    /// `iptables-legacy-save`, where `iptables-save` can be another.
    pub iptables_legacy_save: Lookup,
    /// `ip6tables-legacy-save`.
    pub ip6tables_legacy_save: Lookup,
    /// `ebtables-save`.
    pub ebtables_save: Lookup,
    /// `ebtables-restore`.
    pub ebtables_restore: Lookup,
    /// What [`holding`](Self::holding) was told.
    pub held: Option<Arc<OwnedFd>>,
}

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not there, or cannot be run.
    #[error("{}; {}", .0.why, .0.fix)]
    Absent(Problem),
    /// It could not be started.
    #[error("{program} cannot be started: {source}; check that it can be run by hand")]
    Start {
        /// The tool.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It did not end.
    #[error("{program} did not end within {} s and was killed; see what else changes the firewall", LIMIT.as_secs())]
    Slow {
        /// The tool.
        program: &'static str,
    },
    /// It refused.
    #[error("{program} failed: {said}{}; {}", at(.line), remedy(.said))]
    Refused {
        /// The tool.
        program: &'static str,
        /// Its own words.
        said: String,
        /// The line of our text that it names.
        line: Option<String>,
    },
}

fn at(line: &Option<String>) -> String {
    line.as_ref().map_or_else(String::new, |line| format!(" (at \"{line}\")"))
}

impl ToolError {
    /// Whether the tool did nothing at all: it is not there, or it refused the whole. One that was
    /// killed while it worked may have done it.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, ToolError::Slow { .. })
    }
}

/// What to do about a refusal, by what the tools say where the cause is known.
pub(super) fn remedy(said: &str) -> &'static str {
    if said.contains("not permitted") || said.contains("ermission denied") {
        "run netlaunch as root"
    } else if said.contains("another app") || said.contains("lock") {
        "wait for what else changes the firewall, and try again"
    } else if said.contains("incompatible") {
        "use firewall_backend = \"nftables\", or remove the rules that nft put into iptables' tables"
    } else {
        "see whether the kernel has the netfilter modules for it, or set firewall_backend to the other backend (in network.conf, for filters in nwfilter.conf)"
    }
}

/// One of the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Nft,
    NftList,
    NftAsk,
    Save(Version),
    SaveLegacy(Version),
    Restore(Version),
    SaveEthernet,
    RestoreEthernet,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Nft | Tool::NftList | Tool::NftAsk => "nft",
            Tool::Save(Version::V4) => "iptables-save",
            Tool::Save(Version::V6) => "ip6tables-save",
            Tool::SaveLegacy(Version::V4) => "iptables-legacy-save",
            Tool::SaveLegacy(Version::V6) => "ip6tables-legacy-save",
            Tool::Restore(Version::V4) => "iptables-restore",
            Tool::Restore(Version::V6) => "ip6tables-restore",
            Tool::SaveEthernet => "ebtables-save",
            Tool::RestoreEthernet => "ebtables-restore",
        }
    }

    /// Its arguments for applying our text, or for showing what there is.
    pub(super) fn args(self) -> &'static [&'static str] {
        match self {
            Tool::Nft => &["-f", "-"],
            // Without the counters, which are no rules.
            Tool::NftList => &["-j", "-s", "list", "ruleset"],
            // The question is its caller's.
            Tool::NftAsk => &[],
            Tool::Save(_) | Tool::SaveLegacy(_) | Tool::SaveEthernet => &[],
            Tool::RestoreEthernet => &["--noflush"],
            Tool::Restore(_) => &["--noflush", "-w", "10"],
        }
    }

    /// The package that has it.
    fn package(self) -> &'static str {
        if self.name() == "nft" { "nftables" } else { "iptables" }
    }
}

impl Tools {
    /// Looks for the tools in these directories, then in the system's, which the PATH of ordinary
    /// users leaves out.
    pub fn find(path: &[PathBuf]) -> Self {
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let dirs: Vec<_> = path.iter().cloned().chain(system).collect();
        let tool = |tool: Tool| find(OsStr::new(tool.name()), &dirs);
        Tools {
            nft: tool(Tool::Nft),
            iptables_save: tool(Tool::Save(Version::V4)),
            iptables_restore: tool(Tool::Restore(Version::V4)),
            ip6tables_save: tool(Tool::Save(Version::V6)),
            ip6tables_restore: tool(Tool::Restore(Version::V6)),
            iptables_legacy_save: tool(Tool::SaveLegacy(Version::V4)),
            ip6tables_legacy_save: tool(Tool::SaveLegacy(Version::V6)),
            ebtables_save: tool(Tool::SaveEthernet),
            ebtables_restore: tool(Tool::RestoreEthernet),
            held: None,
        }
    }

    /// The same tools; each keeps `file` open while it runs. A lock on it, which flock(2) ties to
    /// the open file, is given up when the last of them has ended, however we go.
    pub fn holding(&self, file: Arc<OwnedFd>) -> Self {
        Tools { held: Some(file), ..self.clone() }
    }

    fn lookup(&self, tool: Tool) -> &Lookup {
        match tool {
            Tool::Nft | Tool::NftList | Tool::NftAsk => &self.nft,
            Tool::Save(Version::V4) => &self.iptables_save,
            Tool::Save(Version::V6) => &self.ip6tables_save,
            Tool::SaveLegacy(Version::V4) => &self.iptables_legacy_save,
            Tool::SaveLegacy(Version::V6) => &self.ip6tables_legacy_save,
            Tool::Restore(Version::V4) => &self.iptables_restore,
            Tool::Restore(Version::V6) => &self.ip6tables_restore,
            Tool::SaveEthernet => &self.ebtables_save,
            Tool::RestoreEthernet => &self.ebtables_restore,
        }
    }

    /// Runs a tool on `input` and returns what it prints.
    pub(super) async fn run(
        &self,
        tool: Tool,
        extra: &[&str],
        input: &str,
    ) -> Result<String, ToolError> {
        let program = tool.name();
        let path = match self.lookup(tool) {
            Lookup::Found(path) => path,
            other => {
                let install = format!("install the package {}", tool.package());
                let problem = other.problem(OsStr::new(program), &install);
                let unknown = || Problem::new(format!("{program} cannot be run"), install.clone());
                return Err(ToolError::Absent(problem.unwrap_or_else(unknown)));
            }
        };
        let args: Vec<OsString> = extra.iter().chain(tool.args()).map(OsString::from).collect();
        let start = |source| ToolError::Start { program, source };
        let held = self.held.as_ref().map(|file| file.try_clone()).transpose().map_err(start)?;
        let ended =
            capture_holding(path, &args, input.as_bytes(), LIMIT, held).await.map_err(start)?;
        let Some(status) = ended.status else { return Err(ToolError::Slow { program }) };
        if status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&ended.stderr);
        let said = match words(&stderr) {
            said if said.is_empty() => status.to_string(),
            said => said,
        };
        let line = line_number(&stderr).and_then(|n| input.lines().nth(n.checked_sub(1)?));
        Err(ToolError::Refused { program, said, line: line.map(str::to_owned) })
    }
}

/// A tool's words on one line: the first that is not a mere pointer to help or to a place.
fn words(stderr: &str) -> String {
    let noise = |line: &&str| {
        !line.is_empty() && !line.starts_with("# Warning") && !line.starts_with("Try `")
    };
    let line = stderr.lines().map(str::trim).find(noise).unwrap_or_default();
    // nft: FILE:LINE:COLUMNS: Error: WORDS
    line.split_once("Error: ").map_or(line, |(_, words)| words).to_owned()
}

/// The number of the input's line that a tool names: nft as `FILE:N:COLUMNS: Error`, the iptables
/// tools as `line N`, `line: N`.
fn line_number(stderr: &str) -> Option<usize> {
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let by_place = || {
        let line = stderr.lines().find(|line| line.contains(": Error: "))?;
        digits(line.split(':').nth(1)?)
    };
    let by_word = || {
        stderr
            .match_indices("line")
            .find_map(|(at, word)| digits(stderr[at + word.len()..].trim_start_matches([':', ' '])))
    };
    by_place().or_else(by_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_words_and_places_are_read() {
        for (stderr, said, line) in [
            (
                "/dev/stdin:23:31-41: Error: Could not process rule: No such file or directory\nadd\n  ^^^\n",
                "Could not process rule: No such file or directory",
                Some(23),
            ),
            (
                "iptables-nft-restore: line 4 failed: No such file.\n",
                "iptables-nft-restore: line 4 failed: No such file.",
                Some(4),
            ),
            (
                "iptables-restore v1.8.9 (legacy): Couldn't load target `nope'\n\nError occurred at line: 3\nTry `iptables-restore -h'\n",
                "iptables-restore v1.8.9 (legacy): Couldn't load target `nope'",
                Some(3),
            ),
            ("", "", None),
        ] {
            assert_eq!(words(stderr), said);
            assert_eq!(line_number(stderr), line, "{stderr}");
        }
    }

    #[tokio::test]
    async fn a_missing_tool_is_named_with_its_package() {
        let mut tools = Tools::find(&[]);
        tools.nft = Lookup::Missing(vec!["/usr/sbin".into()]);
        let error = tools.run(Tool::Nft, &[], "").await.unwrap_err().to_string();
        assert!(error.contains("nft is not installed") && error.contains("nftables"), "{error}");
    }
}
