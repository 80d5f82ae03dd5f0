//! Finds the features of this host: [`Prober::facts`] for a launch, `Prober::survey` for the rest
//! of `netlaunch probe`.
//!
//! A feature counts as present if the program lists it, or if a trial of it works; a version number
//! never counts. A missing feature comes with the reason and the fix. Parsers are pure functions of
//! texts. The functions that read files take the directory that stands for `/`, so a test can
//! describe a host in a directory; device files and the kernel are always the real ones.
//!
//! Probing changes only its own cache on the host, never fails, and takes a bounded time: programs
//! run with a time limit, and a trial that could crash or hang runs in a child process. A program
//! that is not known to be QEMU is never run, because it may be a script that boots the user's
//! machine.

mod apparmor;
#[cfg(feature = "cli")]
mod bridge;
mod cache;
mod features;
#[cfg(feature = "cli")]
mod firewall;
#[cfg(all(feature = "cli", any(test, feature = "fuzz")))]
pub(crate) mod fuzz;
mod host;
mod identity;
#[cfg(feature = "cli")]
mod kernel;
#[cfg(feature = "cli")]
mod libvirt;
mod machine;
mod passt;
mod qemu;
mod qmp;
#[cfg(feature = "cli")]
mod trials;

use std::ffi::OsStr;
use std::path::PathBuf;

#[cfg(feature = "cli")]
use serde::{Deserialize, Serialize};

use crate::types::facts::Facts;
#[cfg(feature = "cli")]
use crate::types::facts::{BridgeAccess, Firewall, Kernel, Libvirt};
use cache::Cache;

pub(crate) use machine::MachineName;

/// The directories and the user of a probe. Probing takes nothing else from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prober {
    /// The directories of PATH, in order.
    pub(crate) path: Vec<PathBuf>,
    /// The directory of the cache for the programs' answers, usually `$XDG_CACHE_HOME/netlaunch`.
    /// The probe makes it if it is missing. `None` means that no answer is cached.
    pub(crate) cache_dir: Option<PathBuf>,
    /// The user's home directory.
    pub(crate) home: Option<PathBuf>,
    /// The user's runtime directory, XDG_RUNTIME_DIR.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Whether the probing user is root.
    pub(crate) root: bool,
    /// The directory that stands for `/`; another directory than `/` is for tests.
    pub(crate) system: PathBuf,
}

impl Default for Prober {
    /// A prober that finds only programs that are named by their paths, and keeps no answers.
    fn default() -> Self {
        Prober {
            path: Vec::new(),
            cache_dir: None,
            home: None,
            runtime_dir: None,
            root: false,
            system: "/".into(),
        }
    }
}

/// The programs of a launch, as paths or as names to look up in PATH.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Programs<'a> {
    /// QEMU, or a script that runs it; `None` is `qemu-system-ARCH` of this machine, or `qemu-kvm`
    /// if that is not installed.
    pub(crate) qemu: Option<&'a OsStr>,
    /// The emulator to ask instead of `qemu` if `qemu` is a script.
    pub(crate) emulator: Option<&'a OsStr>,
    /// passt; `None` is `passt`.
    pub(crate) passt: Option<&'a OsStr>,
    /// The machine of the launch.
    pub(crate) machine: Option<&'a MachineName>,
}

/// The facts that only `netlaunch probe` reports. No user-mode launch depends on them.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Survey {
    /// libvirt, if it is installed.
    pub(crate) libvirt: Libvirt,
    /// The means for bridged networks.
    pub(crate) bridge: BridgeAccess,
    /// The firewall tools.
    pub(crate) firewall: Firewall,
    /// The features of the kernel.
    pub(crate) kernel: Kernel,
}

impl Prober {
    /// Finds the facts for a launch: passt, QEMU and the host's network.
    ///
    /// `qemu` and `passt` are paths, or names to look up in PATH; [`Programs`] has the defaults.
    /// Both programs are asked at the same time. A program whose answer is in the cache is not run.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "for the command line"))]
    pub(crate) async fn facts(&self, qemu: Option<&OsStr>, passt: Option<&OsStr>) -> Facts {
        self.facts_of(Programs { qemu, passt, ..Programs::default() }).await
    }

    /// Finds the facts for a launch, as [`Prober::facts`], for all its programs and its machine.
    pub(crate) async fn facts_of(&self, programs: Programs<'_>) -> Facts {
        let mut cache = Cache::open(self.cache_dir.as_deref());
        let Programs { qemu, emulator, passt, machine } = programs;
        let question = qemu::Question { program: qemu, emulator, machine };
        let ((passt, new_passt), (qemu, new_qemu)) =
            tokio::join!(passt::probe(self, &cache, passt), qemu::probe(self, &cache, question));
        if let Some((key, options)) = new_passt {
            cache.put(key, &options);
        }
        if let Some((key, answer)) = new_qemu.answer {
            cache.put(key, &answer);
        }
        if let Some((key, machine)) = new_qemu.machine {
            cache.put(key, &machine);
        }
        cache.save();
        let host = host::probe(&self.system, self.root);
        Facts { passt, qemu, host, ..Facts::default() }
    }

    /// Returns the reason why QEMU cannot make the card `model` on a machine, in QEMU's own words;
    /// `None` if it can. The answer explains a launch that has failed.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "for the command line"))]
    pub(crate) async fn refuses_card(
        &self,
        facts: &crate::types::facts::Qemu,
        machine: &MachineName,
        model: &str,
    ) -> Option<String> {
        let emulator = facts.emulator.as_deref().or(facts.path.as_deref())?;
        machine::refuses_card(emulator, machine, model).await
    }

    /// Finds out how this user can put a guest on a bridge. The facts of a launch on a bridge need
    /// the answer.
    #[cfg(feature = "cli")]
    pub(crate) fn bridge(&self) -> BridgeAccess {
        bridge::probe(&self.system)
    }

    /// Finds the facts that only `netlaunch probe` reports.
    ///
    /// This takes up to five seconds on a host where libvirt does not answer and KVM hangs. The
    /// kernel's part starts child processes and blocks the calling thread until they end.
    #[cfg(feature = "cli")]
    pub(crate) async fn survey(&self) -> Survey {
        Survey {
            libvirt: libvirt::probe(self).await,
            bridge: self.bridge(),
            firewall: firewall::probe(&self.path),
            kernel: kernel::probe(&self.system, self.root),
        }
    }
}

/// Returns the first line of a program's output that is not empty, cut off after 120 characters.
fn first_line(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let end = line.char_indices().nth(120).map_or(line.len(), |(at, _)| at);
    Some(&line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A host with no files but the programs of one directory.
    pub(super) struct Host {
        dir: tempfile::TempDir,
        pub(super) prober: Prober,
    }

    impl Host {
        pub(super) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            for name in ["bin", "usr/libexec"] {
                std::fs::create_dir_all(at(name)).unwrap();
            }
            let prober = Prober {
                path: vec![at("bin")],
                cache_dir: Some(at("cache")),
                home: None,
                runtime_dir: None,
                root: false,
                system: dir.path().to_owned(),
            };
            Host { dir, prober }
        }

        pub(super) fn bin(&self) -> PathBuf {
            self.dir.path().join("bin")
        }

        /// Writes a shell script into the directory of programs.
        ///
        /// A shell writes the file, because a file that is open for writing cannot be executed: if
        /// this process opened it, a child that another test forks at the same moment would have
        /// it open too.
        pub(super) fn script(&self, name: &str, text: &str) -> PathBuf {
            let path = self.bin().join(name);
            let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
            let status =
                Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&path).arg(text).status();
            assert!(status.unwrap().success());
            path
        }
    }

    #[test]
    fn the_futures_of_a_prober_are_send() {
        fn assert_send(_: impl Send) {}
        let Host { prober, .. } = Host::new();
        let (qemu, machine) = (Default::default(), MachineName::default());
        assert_send(prober.facts(None, None));
        assert_send(prober.refuses_card(&qemu, &machine, "model"));
        #[cfg(feature = "cli")]
        assert_send(prober.survey());
    }

    #[test]
    fn the_first_line_is_the_first_that_is_not_empty_and_is_cut_off() {
        assert_eq!(first_line("\n \n a b \nc"), Some("a b"));
        assert_eq!(first_line("\n"), None);
        assert_eq!(first_line(&"é".repeat(500)).map(str::len), Some(240));
    }

    #[tokio::test]
    async fn each_missing_program_is_a_problem_with_a_fix() {
        let host = Host::new();
        let facts = host.prober.facts(None, None).await;
        for problem in [facts.passt.problem, facts.qemu.problem] {
            let problem = problem.unwrap();
            assert!(problem.why.contains("not installed") && problem.fix.contains("install"));
        }
        assert!(!host.dir.path().join("cache").exists(), "no answer, so no cache is written");
    }

    /// Returns a prober of the installed programs; `None` if this machine does not have them.
    fn installed(cache_dir: PathBuf) -> Option<Prober> {
        let exists = |file: &str| PathBuf::from(file).is_file();
        (exists("/usr/bin/passt") && exists("/usr/bin/qemu-system-x86_64")).then(|| Prober {
            path: vec!["/usr/bin".into()],
            cache_dir: Some(cache_dir),
            home: None,
            runtime_dir: None,
            root: nix::unistd::geteuid().is_root(),
            system: "/".into(),
        })
    }

    #[tokio::test]
    async fn the_second_probe_of_a_program_reads_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let Some(prober) = installed(dir.path().join("cache")) else {
            eprintln!("skipped: passt and qemu-system-x86_64 are not in /usr/bin (./tests/setup)");
            return;
        };
        let qemu = Some(OsStr::new("qemu-system-x86_64"));
        let cold = prober.facts(qemu, None).await;
        assert_eq!((&cold.passt.problem, &cold.qemu.problem), (&None, &None));
        assert!(cold.passt.has("socket") && cold.qemu.netdevs.contains("stream"));

        assert_eq!(prober.facts(qemu, None).await, cold);

        // Names that no program lists can come from the cache only.
        let cache = dir.path().join("cache/probe.json");
        let text = std::fs::read_to_string(&cache).unwrap();
        let text = text.replace("\"socket\"", "\"from-cache\"").replace("\"stream\"", "\"cached\"");
        std::fs::write(&cache, text).unwrap();
        let warm = prober.facts(qemu, None).await;
        assert!(warm.passt.has("from-cache") && warm.qemu.netdevs.contains("cached"), "{warm:?}");
    }

    #[cfg(feature = "cli")]
    #[tokio::test]
    async fn a_survey_has_a_reason_for_each_feature() {
        let dir = tempfile::tempdir().unwrap();
        let survey = Prober { path: vec![], ..Host::new().prober };
        let survey = Prober { system: dir.path().to_owned(), ..survey }.survey().await;
        assert!(survey.libvirt.why.contains("not installed"));
        let Kernel { user_namespaces, pid_namespaces, kvm, ping } = survey.kernel;
        for feature in [user_namespaces, pid_namespaces, kvm, ping] {
            assert!(!feature.why.is_empty());
        }
    }
}
