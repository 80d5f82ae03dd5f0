//! Finding out what this host can do: [`Prober::facts`] for a launch, [`Prober::survey`] for the
//! rest of `netlaunch probe`.
//!
//! A thing counts as there when it was seen to be, by its own answer or by trying it, never by a
//! version number; what is missing comes with why and with what to do about it. Probing changes
//! nothing on the host but its own cache, fails for no reason, and takes a bounded time: programs
//! run with a limit, and what could crash or hang runs in a child process.
//!
//! Parsers are pure functions of texts. The functions around them that read files take the
//! directory that stands for `/`, so tests can hand them a host of their own making. Device files
//! and the kernel itself are always the real ones.

pub mod program;

mod apparmor;
mod bridge;
mod cache;
mod firewall;
mod host;
mod kernel;
mod libvirt;
mod passt;
mod qemu;

use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::facts::{Bridge, Facts, Firewall, Kernel, Libvirt};
use cache::Cache;

/// Where to look, and as whom: all that probing takes from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prober {
    /// The directories of PATH, in order.
    pub path: Vec<PathBuf>,
    /// Where answers of programs are kept, `$XDG_CACHE_HOME/netlaunch` by default; made where it
    /// is missing. Nothing is kept where this is `None`.
    pub cache_dir: Option<PathBuf>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The user's runtime directory, XDG_RUNTIME_DIR.
    pub runtime_dir: Option<PathBuf>,
    /// Whether we run as root.
    pub root: bool,
    /// What stands before the paths of system files; `/` but in tests.
    pub system: PathBuf,
}

/// What only the probe command reports: nothing here changes a user-mode launch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// libvirt, where it is installed.
    pub libvirt: Libvirt,
    /// What bridged networks would need.
    pub bridge: Bridge,
    /// The firewall tools.
    pub firewall: Firewall,
    /// What the kernel offers.
    pub kernel: Kernel,
}

impl Prober {
    /// What a launch needs to know: passt, QEMU and the host's network.
    ///
    /// `qemu` and `passt` name the programs, as paths or as names to look up; by default they are
    /// `qemu-system-ARCH` of this machine, else `qemu-kvm`, and `passt`. Both are asked at the same
    /// time. Programs whose answers are in the cache are not run at all.
    pub async fn facts(&self, qemu: Option<&OsStr>, passt: Option<&OsStr>) -> Facts {
        let mut cache = Cache::open(self.cache_dir.as_deref());
        let ((passt, new_passt), (qemu, new_qemu)) =
            tokio::join!(passt::probe(self, &cache, passt), qemu::probe(self, &cache, qemu));
        if let Some((key, options)) = new_passt {
            cache.put(key, &options);
        }
        if let Some((key, answer)) = new_qemu {
            cache.put(key, &answer);
        }
        cache.save();
        let host = host::host(&self.system, self.root);
        Facts { passt, qemu, host, ..Facts::default() }
    }

    /// How this user may join bridges; a launch on one needs it in its facts.
    pub fn bridge(&self) -> Bridge {
        bridge::bridge(&self.system)
    }

    /// Everything else there is to say about this host.
    ///
    /// Takes up to five seconds on a host where libvirt does not answer and KVM hangs. The kernel's
    /// part makes processes and waits for them on the calling thread.
    pub async fn survey(&self) -> Survey {
        Survey {
            libvirt: libvirt::probe(self).await,
            bridge: self.bridge(),
            firewall: firewall::firewall(&self.path),
            kernel: kernel::kernel(&self.system),
        }
    }
}

/// The first line of a program's output that says anything, shortened to a sensible length.
fn first_line(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let end = line.char_indices().nth(120).map_or(line.len(), |(at, _)| at);
    Some(&line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A host without anything but a directory of programs.
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
        /// A shell writes it: a file that this process has open for writing cannot be executed, and
        /// what another test forks at that moment has it open, too.
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
    fn first_lines_are_short() {
        assert_eq!(first_line("\n \n a b \nc"), Some("a b"));
        assert_eq!(first_line("\n"), None);
        assert_eq!(first_line(&"é".repeat(500)).map(str::len), Some(240));
    }

    #[tokio::test]
    async fn a_host_without_anything_has_problems_with_fixes() {
        let host = Host::new();
        let facts = host.prober.facts(None, None).await;
        for problem in [facts.passt.problem, facts.qemu.problem] {
            let problem = problem.unwrap();
            assert!(problem.why.contains("not installed") && problem.fix.contains("install"));
        }
        assert!(!host.dir.path().join("cache").exists(), "nothing to keep, nothing written");
    }

    /// The real programs, where this machine has them.
    fn real(cache_dir: PathBuf) -> Option<Prober> {
        let there = |file: &str| PathBuf::from(file).is_file();
        (there("/usr/bin/passt") && there("/usr/bin/qemu-system-x86_64")).then(|| Prober {
            path: vec!["/usr/bin".into()],
            cache_dir: Some(cache_dir),
            home: None,
            runtime_dir: None,
            root: nix::unistd::geteuid().is_root(),
            system: "/".into(),
        })
    }

    #[tokio::test]
    async fn real_programs_are_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let Some(prober) = real(dir.path().join("cache")) else {
            eprintln!("skipped: passt and qemu-system-x86_64 are not in /usr/bin (./tests/setup)");
            return;
        };
        let qemu = Some(OsStr::new("qemu-system-x86_64"));
        let cold = prober.facts(qemu, None).await;
        assert_eq!((&cold.passt.problem, &cold.qemu.problem), (&None, &None));
        assert!(cold.passt.has("socket") && cold.qemu.netdevs.contains("stream"));

        assert_eq!(prober.facts(qemu, None).await, cold);

        // What only the cache says can only come from there.
        let cache = dir.path().join("cache/probe.json");
        let told = std::fs::read_to_string(&cache).unwrap();
        let told = told.replace("\"socket\"", "\"from-cache\"").replace("\"stream\"", "\"cached\"");
        std::fs::write(&cache, told).unwrap();
        let warm = prober.facts(qemu, None).await;
        assert!(warm.passt.has("from-cache") && warm.qemu.netdevs.contains("cached"), "{warm:?}");
    }

    #[tokio::test]
    async fn a_survey_of_this_machine_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let survey = Prober { path: vec![], ..Host::new().prober };
        let survey = Prober { system: dir.path().to_owned(), ..survey }.survey().await;
        assert!(survey.libvirt.why.contains("not installed"));
        let Kernel { user_namespaces, pid_namespaces, kvm } = survey.kernel;
        for ability in [user_namespaces, pid_namespaces, kvm] {
            assert!(!ability.why.is_empty());
        }
    }
}
