//! Finds and runs the firewall's programs, and reads their error messages.
//!
//! Each use of a program is a [`Tool`] with fixed arguments, and gets its input through a pipe.
//! A program that only reads runs a second time after an interruption; a program that changes
//! rules does not, since its effect must be checked first ([`super::commit`],
//! [`super::iptables_change`]).

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::applied_texts::AppliedTexts;
use super::tool_error::{LIMIT, ToolError};
use crate::firewall::rules::Version;
use crate::sys::process::{CaptureError, Captured, capture_holding};
use crate::sys::program::{Lookup, find};
use crate::types::facts::Problem;

/// The waits between attempts to start a tool, if the host lacks memory, processes or descriptors.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(160),
    Duration::from_millis(640),
];

/// The paths of the tools.
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
    /// `iptables-legacy-save`, for hosts whose `iptables-save` is the nf_tables variant.
    pub iptables_legacy_save: Lookup,
    /// `ip6tables-legacy-save`.
    pub ip6tables_legacy_save: Lookup,
    /// `ebtables`.
    pub ebtables: Lookup,
    /// `ebtables-save`.
    pub ebtables_save: Lookup,
    /// `ebtables-restore`.
    pub ebtables_restore: Lookup,
    /// The file that each tool keeps open while it runs; see [`holding`](Self::holding).
    pub held: Option<Arc<OwnedFd>>,
    /// The texts of the last reload, for a reload; `None` means that nft applies every text.
    pub applied: Option<Arc<AppliedTexts>>,
}

/// A tool in one of its uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Nft,
    NftList,
    NftAsk,
    Save(Version),
    SaveCounters(Version),
    SaveLegacy(Version),
    Restore(Version),
    ListEthernet,
    SaveEthernet,
    RestoreEthernet,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Nft | Tool::NftList | Tool::NftAsk => "nft",
            Tool::Save(Version::V4) | Tool::SaveCounters(Version::V4) => "iptables-save",
            Tool::Save(Version::V6) | Tool::SaveCounters(Version::V6) => "ip6tables-save",
            Tool::SaveLegacy(Version::V4) => "iptables-legacy-save",
            Tool::SaveLegacy(Version::V6) => "ip6tables-legacy-save",
            Tool::Restore(Version::V4) => "iptables-restore",
            Tool::Restore(Version::V6) => "ip6tables-restore",
            Tool::ListEthernet => "ebtables",
            Tool::SaveEthernet => "ebtables-save",
            Tool::RestoreEthernet => "ebtables-restore",
        }
    }

    /// Returns whether the tool changes no rules.
    fn only_reads(self) -> bool {
        match self {
            Tool::Nft | Tool::Restore(_) | Tool::RestoreEthernet => false,
            Tool::NftList
            | Tool::NftAsk
            | Tool::Save(_)
            | Tool::SaveCounters(_)
            | Tool::SaveLegacy(_)
            | Tool::ListEthernet
            | Tool::SaveEthernet => true,
        }
    }

    /// Returns the arguments for applying a text, or for listing the present state.
    pub(super) fn args(self) -> &'static [&'static str] {
        match self {
            Tool::Nft => &["-f", "-"],
            // `-s` leaves the counters out, since they are not part of the rules.
            Tool::NftList => &["-j", "-s", "list", "ruleset"],
            // The caller adds the whole command.
            Tool::NftAsk => &[],
            Tool::Save(_) | Tool::SaveLegacy(_) | Tool::SaveEthernet => &[],
            Tool::SaveCounters(_) => &["-c"],
            Tool::ListEthernet => &["-t", "nat", "-L", "--Lc"],
            Tool::RestoreEthernet => &["--noflush"],
            Tool::Restore(_) => &["--noflush", "-w", "10"],
        }
    }

    /// Returns the name of the package that contains the tool.
    fn package(self) -> &'static str {
        if self.name() == "nft" { "nftables" } else { "iptables" }
    }
}

impl Tools {
    /// Looks for the tools in these directories, then in /usr/sbin and /sbin, which are often
    /// missing from the PATH of ordinary users.
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
            ebtables: tool(Tool::ListEthernet),
            ebtables_save: tool(Tool::SaveEthernet),
            ebtables_restore: tool(Tool::RestoreEthernet),
            held: None,
            applied: None,
        }
    }

    /// Returns the same tools, each of which keeps `file` open while it runs. flock(2) ties a lock
    /// to the open file, so the lock is released when netlaunch and the last tool have ended, even
    /// if netlaunch was killed.
    pub fn holding(&self, file: Arc<OwnedFd>) -> Self {
        Tools { held: Some(file), ..self.clone() }
    }

    fn lookup(&self, tool: Tool) -> &Lookup {
        match tool {
            Tool::Nft | Tool::NftList | Tool::NftAsk => &self.nft,
            Tool::Save(Version::V4) | Tool::SaveCounters(Version::V4) => &self.iptables_save,
            Tool::Save(Version::V6) | Tool::SaveCounters(Version::V6) => &self.ip6tables_save,
            Tool::SaveLegacy(Version::V4) => &self.iptables_legacy_save,
            Tool::SaveLegacy(Version::V6) => &self.ip6tables_legacy_save,
            Tool::Restore(Version::V4) => &self.iptables_restore,
            Tool::Restore(Version::V6) => &self.ip6tables_restore,
            Tool::ListEthernet => &self.ebtables,
            Tool::SaveEthernet => &self.ebtables_save,
            Tool::RestoreEthernet => &self.ebtables_restore,
        }
    }

    /// Runs a tool on `input` and returns its output. A tool that only reads runs a second time if
    /// the first run was interrupted.
    pub(super) async fn run(
        &self,
        tool: Tool,
        extra: &[&str],
        input: &str,
    ) -> Result<String, ToolError> {
        match self.run_once(tool, extra, input).await {
            Err(error) if tool.only_reads() && error.is_interruption() => {
                self.run_once(tool, extra, input).await
            }
            done => done,
        }
    }

    async fn run_once(&self, tool: Tool, extra: &[&str], input: &str) -> Result<String, ToolError> {
        let program = tool.name();
        let path = match self.lookup(tool) {
            Lookup::Found(path) => path,
            other => {
                let install = format!("install the package {}", tool.package());
                let problem = other.problem(OsStr::new(program), &install);
                let unknown = || Problem::new(format!("{program} cannot be run"), install.clone());
                return Err(ToolError::Absent(Box::new(problem.unwrap_or_else(unknown))));
            }
        };
        let args: Vec<OsString> = extra.iter().chain(tool.args()).map(OsString::from).collect();
        let ended = self.start(path, &args, input).await.map_err(|error| {
            let transient = error.is_transient();
            match error {
                CaptureError::NotStarted(source) if transient => {
                    ToolError::Shortage { program, source }
                }
                CaptureError::NotStarted(source) => ToolError::Start { program, source },
                CaptureError::Lost(source) => ToolError::Unread { program, source },
            }
        })?;
        let Some(status) = ended.status else { return Err(ToolError::Slow { program }) };
        if let Some(signal) = status.signal() {
            return Err(ToolError::Killed { program, signal });
        }
        if status.success() {
            // The iptables tools read their input to the end. nft opens its input file again, so
            // the number of bytes left in the pipe is no proof.
            return match tool {
                Tool::Restore(_) | Tool::RestoreEthernet if ended.left > 0 => {
                    Err(ToolError::Ignored { program })
                }
                _ => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
            };
        }
        let stderr = String::from_utf8_lossy(&ended.stderr);
        let said = match words(&stderr) {
            said if said.is_empty() => status.to_string(),
            said => said,
        };
        let line = line_number(&stderr).and_then(|n| input.lines().nth(n.checked_sub(1)?));
        Err(ToolError::Refused { program, said, line: line.map(str::to_owned) })
    }

    /// Runs a program to its end. Tries again if the program could not be started because the host
    /// lacks a resource for the moment.
    async fn start(
        &self,
        path: &Path,
        args: &[OsString],
        input: &str,
    ) -> Result<Captured, CaptureError> {
        let attempt = || async {
            let held = self.held.as_ref().map(|file| file.try_clone()).transpose();
            let held = held.map_err(CaptureError::NotStarted)?;
            capture_holding(path, args, input.as_bytes(), LIMIT, held).await
        };
        for pause in PAUSES {
            match attempt().await {
                Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
                done => return done,
            }
        }
        attempt().await
    }
}

/// Returns the first line of a tool's error message that is not a warning or a pointer to the help
/// text.
fn words(stderr: &str) -> String {
    let noise = |line: &&str| {
        !line.is_empty() && !line.starts_with("# Warning") && !line.starts_with("Try `")
    };
    let line = stderr.lines().map(str::trim).find(noise).unwrap_or_default();
    // The format of nft is FILE:LINE:COLUMNS: Error: WORDS.
    line.split_once("Error: ").map_or(line, |(_, words)| words).to_owned()
}

/// Returns the number of the input line that a tool names: nft writes `FILE:N:COLUMNS: Error`, the
/// iptables tools write `line N` or `line: N`.
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
