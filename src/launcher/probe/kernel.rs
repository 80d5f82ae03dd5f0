//! Finds the features that the kernel gives to this process, by trying each one.
//!
//! A setting or a device file can promise too much: no guest runs on some KVM devices, and a
//! container's rules can refuse a namespace. So each feature is tried in a child process. The
//! settings are read only to explain a failure, or a limit of a namespace that worked.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{getegid, getgroups};

use crate::sys::kvm::{KvmOutcome, KvmStep, try_kvm};
use crate::sys::namespace::{Namespace, try_namespace};
use crate::sys::ping_socket::{PingSocket, try_ping_socket};
use crate::sys::transient_user::UNUSED;
use crate::types::facts::{Kernel, KernelFeature};

/// The time limit for the three instructions of the KVM test.
const LIMIT: Duration = Duration::from_secs(2);
/// The path of the KVM device. It is not below the prober's system prefix, because it is not a file
/// to read.
const KVM: &str = "/dev/kvm";
/// The setting that allows ICMP echo sockets.
const PING: &str = "net/ipv4/ping_group_range";
/// The ends of the range from which root's passt gets its group.
const TRANSIENT: [u32; 2] = [*UNUSED.start(), *UNUSED.end()];
/// `KVM_EXIT_INTERNAL_ERROR`, the exit reason on hosts without hardware virtualization, if they
/// give one.
const INTERNAL_ERROR: u32 = 17;

/// Tries all features; blocks for little more than two seconds. Settings are read below `root`.
pub(super) fn probe(root: &Path, is_root: bool) -> Kernel {
    let user = try_namespace(Namespace::User);
    Kernel {
        pid_namespaces: pid_namespaces(try_namespace(Namespace::Pid), user.is_ok()),
        user_namespaces: user_namespaces(user, &Settings::read(root)),
        kvm: kvm(try_kvm(Path::new(KVM), LIMIT)),
        ping: ping(
            try_ping(is_root),
            fs::read_to_string(root.join("proc/sys").join(PING)),
            &groups(is_root),
        ),
    }
}

fn works(why: impl Into<String>) -> KernelFeature {
    KernelFeature { usable: true, why: why.into(), fix: None }
}

fn fails(why: impl Into<String>, fix: impl Into<String>) -> KernelFeature {
    KernelFeature { usable: false, why: why.into(), fix: Some(fix.into()) }
}

/// The kernel settings that limit user namespaces; `None` if the kernel does not have the setting.
#[derive(Debug, Default)]
struct Settings {
    /// The largest number of user namespaces (user_namespaces(7)).
    most: Option<u64>,
    /// Whether users other than root may make user namespaces (Debian's kernels).
    unprivileged: Option<u64>,
    /// Whether AppArmor removes the privileges inside a user namespace (Ubuntu's kernels).
    apparmor: Option<u64>,
}

impl Settings {
    fn read(root: &Path) -> Self {
        let number = |file: &str| {
            fs::read_to_string(root.join("proc/sys").join(file)).ok()?.trim().parse().ok()
        };
        Settings {
            most: number("user/max_user_namespaces"),
            unprivileged: number("kernel/unprivileged_userns_clone"),
            apparmor: number("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

fn user_namespaces(tried: io::Result<()>, settings: &Settings) -> KernelFeature {
    let refused = match tried {
        Ok(()) if settings.apparmor == Some(1) => {
            return works(
                "one was made (AppArmor limits what programs without a profile may do inside)",
            );
        }
        Ok(()) => return works("one was made"),
        Err(error) => error,
    };
    match settings {
        Settings { most: Some(0), .. } => fails(
            "the kernel allows none: user.max_user_namespaces is 0",
            "run 'sysctl user.max_user_namespaces=15000' as root",
        ),
        Settings { unprivileged: Some(0), .. } => fails(
            "only root may make them: kernel.unprivileged_userns_clone is 0",
            "run 'sysctl kernel.unprivileged_userns_clone=1' as root",
        ),
        Settings { apparmor: Some(1), .. } => fails(
            format!("AppArmor restricts them to programs with a profile ({refused})"),
            "run 'sysctl kernel.apparmor_restrict_unprivileged_userns=0' as root",
        ),
        _ => fails(
            format!("the kernel refuses one: {refused}"),
            "in a container, allow unshare(2) in its seccomp rules; elsewhere use a kernel with \
             CONFIG_USER_NS",
        ),
    }
}

fn pid_namespaces(tried: io::Result<()>, user_namespaces: bool) -> KernelFeature {
    match tried {
        Ok(()) => works("one was made"),
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) && user_namespaces => {
            fails(
                "only root may make one outside of a user namespace",
                "nothing to do: only root's launches use them",
            )
        }
        Err(error) => fails(
            format!("the kernel refuses one: {error}"),
            "run as root with CAP_SYS_ADMIN; in a container, add that capability",
        ),
    }
}

fn kvm(tried: io::Result<KvmOutcome>) -> KernelFeature {
    const EMULATION: &str = "use QEMU's emulation (-accel tcg), or a host whose hypervisor passes \
                             virtualization on";
    let outcome = match tried {
        Ok(outcome) => outcome,
        Err(error) => return fails(format!("not tested: {error}"), "try again"),
    };
    match outcome {
        KvmOutcome::Halted => works("a guest ran"),
        KvmOutcome::Untested => KernelFeature {
            usable: false,
            why: "not tested on this architecture".to_owned(),
            fix: None,
        },
        KvmOutcome::Unopened(Errno::ENOENT) => fails(
            format!("{KVM} does not exist"),
            "switch virtualization on in the firmware, or pass it on to this virtual machine, and \
             load the module kvm_intel or kvm_amd",
        ),
        KvmOutcome::Unopened(Errno::EACCES | Errno::EPERM) => fails(
            format!("this user may not open {KVM}"),
            "add the user to the group that owns the device, usually with 'usermod -aG kvm USER', \
             and log in again",
        ),
        KvmOutcome::Unopened(errno) => fails(
            format!("{KVM} cannot be opened: {}", errno.desc()),
            "load the module kvm_intel or kvm_amd, or use QEMU's emulation (-accel tcg)",
        ),
        KvmOutcome::Refused(step, Errno::EBUSY) => fails(
            format!("{}: the processor's virtualization is in use", failed(step)),
            "stop the other hypervisor (VirtualBox, VMware) that uses it",
        ),
        KvmOutcome::Refused(step, errno) => {
            fails(format!("{}: {}", failed(step), errno.desc()), EMULATION)
        }
        KvmOutcome::Stopped(INTERNAL_ERROR) => fails(
            format!("{KVM} opens, but the kernel cannot run a guest's instructions here"),
            EMULATION,
        ),
        KvmOutcome::Stopped(reason) => fails(
            format!("{KVM} opens, but a guest stops at once (KVM exit reason {reason})"),
            EMULATION,
        ),
        KvmOutcome::Crashed => {
            fails(format!("{KVM} opens, but running a guest ends the process"), EMULATION)
        }
        KvmOutcome::Hung => fails(
            format!("{KVM} opens, but a guest did not run within {} s", LIMIT.as_secs()),
            EMULATION,
        ),
    }
}

/// Returns the groups that the range must allow: one of this user's groups, or for root both ends
/// of the range from which root's passt gets its group.
fn groups(is_root: bool) -> Vec<u32> {
    if is_root {
        return TRANSIENT.to_vec();
    }
    let own = getgroups().unwrap_or_default();
    own.into_iter().chain([getegid()]).map(|group| group.as_raw()).collect()
}

/// Tries to make an ICMP echo socket as passt: as this user, or for root with a group from each end
/// of the range from which root's passt gets its group.
fn try_ping(is_root: bool) -> PingSocket {
    let tries: &[Option<u32>] = if is_root { &TRANSIENT.map(Some) } else { &[None] };
    let answers = tries.iter().map(|group| try_ping_socket(*group).unwrap_or(PingSocket::Unknown));
    answers.fold(PingSocket::Made, |all, one| if all == PingSocket::Made { one } else { all })
}

/// Decides whether passt may make ICMP echo sockets. The trial decides if it has an answer. The
/// setting, which holds the first and the last group that may make them (icmp(7)), explains the
/// answer, and decides without a trial.
///
/// Root's passt may get any group of a range, and `groups` are then the ends of that range.
fn ping(tried: PingSocket, setting: io::Result<String>, groups: &[u32]) -> KernelFeature {
    const FIX: &str = "run 'sysctl net.ipv4.ping_group_range=\"0 2147483647\"' as root";
    let text = match setting {
        Ok(text) => text,
        Err(_) if tried == PingSocket::Made => return works("a socket was made"),
        Err(error) => return fails(format!("net.ipv4.ping_group_range: {error}"), "mount /proc"),
    };
    let ends: Vec<u32> = text.split_whitespace().filter_map(|end| end.parse().ok()).collect();
    let [first, last] = ends[..] else {
        return fails(format!("net.ipv4.ping_group_range is {:?}", text.trim()), FIX);
    };
    let range = format!("net.ipv4.ping_group_range is {first} {last}");
    let is_in = |group: &u32| (first..=last).contains(group);
    let usable =
        if groups == TRANSIENT { groups.iter().all(is_in) } else { groups.iter().any(is_in) };
    match tried {
        PingSocket::Made => works(format!("a socket was made; {range}")),
        PingSocket::Unknown if usable => works(range),
        PingSocket::Refused(errno) if usable => fails(
            format!("{range}, but the kernel refuses the socket: {}", errno.desc()),
            "in a container, allow ICMP echo sockets in its seccomp rules",
        ),
        _ => fails(format!("{range}, and passt's group is not in that range"), FIX),
    }
}

/// Returns the reason for a failed step of the KVM test.
fn failed(step: KvmStep) -> String {
    let failure = match step {
        KvmStep::Machine => "no virtual machine can be made",
        KvmStep::Memory => "a virtual machine gets no memory",
        KvmStep::Processor => "no virtual processor can be made",
        KvmStep::Registers => "a virtual processor cannot be set up",
        KvmStep::Run => "no guest runs",
    };
    format!("{KVM} opens, but {failure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> io::Result<()> {
        Err(errno.into())
    }

    #[test]
    fn a_refused_user_namespace_names_the_setting_that_refuses_it() {
        let none = Settings::default();
        let most = Settings { most: Some(0), ..Settings::default() };
        let debian = Settings { unprivileged: Some(0), most: Some(9), ..Settings::default() };
        let ubuntu = Settings { apparmor: Some(1), ..Settings::default() };
        for (tried, settings, usable, words) in [
            (Ok(()), &none, true, "one was made"),
            (Ok(()), &ubuntu, true, "AppArmor limits"),
            (refused(Errno::ENOSPC), &most, false, "user.max_user_namespaces is 0"),
            (refused(Errno::EPERM), &debian, false, "kernel.unprivileged_userns_clone is 0"),
            (refused(Errno::EACCES), &ubuntu, false, "AppArmor restricts"),
            (refused(Errno::EPERM), &none, false, "Operation not permitted"),
        ] {
            let feature = user_namespaces(tried, settings);
            assert_eq!((feature.usable, feature.fix.is_none()), (usable, usable), "{words}");
            assert!(feature.why.contains(words), "{}", feature.why);
        }
    }

    #[test]
    fn a_refused_pid_namespace_says_when_only_root_uses_one() {
        for (tried, user, usable, words) in [
            (Ok(()), true, true, "one was made"),
            (refused(Errno::EPERM), true, false, "only root"),
            (refused(Errno::EPERM), false, false, "Operation not permitted"),
            (refused(Errno::ENOSPC), true, false, "No space"),
        ] {
            let feature = pid_namespaces(tried, user);
            assert_eq!((feature.usable, feature.fix.is_none()), (usable, usable), "{words}");
            assert!(feature.why.contains(words), "{}", feature.why);
        }
    }

    #[test]
    fn kvm_is_usable_only_if_a_guest_ran() {
        for (outcome, usable, words) in [
            (KvmOutcome::Halted, true, "a guest ran"),
            (KvmOutcome::Unopened(Errno::ENOENT), false, "does not exist"),
            (KvmOutcome::Unopened(Errno::EACCES), false, "may not open"),
            (KvmOutcome::Unopened(Errno::ENODEV), false, "cannot be opened: No such device"),
            (KvmOutcome::Refused(KvmStep::Machine, Errno::EBUSY), false, "in use"),
            (KvmOutcome::Refused(KvmStep::Run, Errno::EFAULT), false, "no guest runs: Bad address"),
            (KvmOutcome::Stopped(17), false, "cannot run a guest's instructions"),
            (KvmOutcome::Stopped(8), false, "exit reason 8"),
            (KvmOutcome::Crashed, false, "ends the process"),
            (KvmOutcome::Hung, false, "did not run within 2 s"),
        ] {
            let feature = kvm(Ok(outcome));
            assert_eq!((feature.usable, feature.fix.is_none()), (usable, usable), "{words}");
            assert!(feature.why.contains(words), "{}", feature.why);
        }
        let untested = kvm(Ok(KvmOutcome::Untested));
        assert_eq!((untested.usable, untested.fix), (false, None));
        assert!(!kvm(Err(Errno::EMFILE.into())).usable);
    }

    #[test]
    fn ping_is_usable_if_the_setting_allows_a_group_of_passt() {
        for (text, groups, usable) in [
            ("1\t0\n", &[1000][..], false),
            ("0\t2147483647\n", &[1000], true),
            ("0\t2147483647\n", &TRANSIENT, true),
            ("0\t100\n", &[1000, 100], true),
            ("0\t100\n", &TRANSIENT, false),
            ("0\t2000000000\n", &TRANSIENT, false),
            ("", &[0], false),
        ] {
            let feature = ping(PingSocket::Unknown, Ok(text.to_owned()), groups);
            assert_eq!((feature.usable, feature.fix.is_none()), (usable, usable), "{text:?}");
        }
        assert!(!ping(PingSocket::Unknown, Err(io::ErrorKind::NotFound.into()), &[0]).usable);
    }

    #[test]
    fn the_trial_of_an_echo_socket_decides_and_the_setting_explains() {
        let refused = PingSocket::Refused(Errno::EACCES);
        for (tried, text, usable, words) in [
            (PingSocket::Made, "0\t10\n", true, "a socket was made"),
            (refused, "0\t10\n", false, "group is not in that range"),
            (refused, "0\t2147483647\n", false, "refuses the socket: Permission denied"),
        ] {
            let feature = ping(tried, Ok(text.to_owned()), &[1000]);
            assert_eq!((feature.usable, feature.fix.is_none()), (usable, usable), "{text:?}");
            assert!(feature.why.contains(words), "{}", feature.why);
        }
    }

    #[test]
    fn a_setting_that_does_not_exist_is_none() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("proc/sys/user");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("max_user_namespaces"), "0\n").unwrap();
        let settings = Settings::read(root.path());
        assert_eq!(
            (settings.most, settings.unprivileged, settings.apparmor),
            (Some(0), None, None)
        );
    }
}
