//! What the kernel lets this process do, found out by doing it.
//!
//! Settings and device files promise more than they keep (a KVM device on which no guest runs, a
//! namespace that a container's rules refuse), so each ability is tried in a child process. The
//! settings are only read to say why something failed.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use crate::facts::{Ability, Kernel};
use crate::process::{KvmOutcome, KvmStep, Namespace, try_kvm, try_namespace};

/// The time the three instructions of the KVM test have.
const LIMIT: Duration = Duration::from_secs(2);
/// Where the device is. Not below the system prefix of the prober: it is not a file to read.
const KVM: &str = "/dev/kvm";
/// `KVM_EXIT_INTERNAL_ERROR`: what hosts without hardware virtualization answer, if anything.
const INTERNAL_ERROR: u32 = 17;

/// Tries everything. Blocks for at most two seconds and a bit. `root` stands before every path
/// that is read.
pub(super) fn kernel(root: &Path) -> Kernel {
    let user = try_namespace(Namespace::User);
    Kernel {
        pid_namespaces: pid_namespaces(try_namespace(Namespace::Pid), user.is_ok()),
        user_namespaces: user_namespaces(user, &Settings::read(root)),
        kvm: kvm(try_kvm(Path::new(KVM), LIMIT)),
    }
}

fn works(why: impl Into<String>) -> Ability {
    Ability { usable: true, why: why.into(), fix: None }
}

fn fails(why: impl Into<String>, fix: impl Into<String>) -> Ability {
    Ability { usable: false, why: why.into(), fix: Some(fix.into()) }
}

/// The kernel settings that limit user namespaces; nothing where a kernel does not have one.
#[derive(Debug, Default)]
struct Settings {
    /// How many there may be (user_namespaces(7)).
    most: Option<u64>,
    /// Whether users other than root may make them at all (Debian's kernels).
    unprivileged: Option<u64>,
    /// Whether AppArmor takes their privileges inside away (Ubuntu's kernels).
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

fn user_namespaces(tried: io::Result<()>, settings: &Settings) -> Ability {
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

fn pid_namespaces(tried: io::Result<()>, user_namespaces: bool) -> Ability {
    match tried {
        Ok(()) => works("one was made"),
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) && user_namespaces => {
            fails(
                "only root may make one outside of a user namespace",
                "nothing to do: they are used only when netlaunch runs as root",
            )
        }
        Err(error) => fails(
            format!("the kernel refuses one: {error}"),
            "run netlaunch as root with CAP_SYS_ADMIN; in a container, add that capability",
        ),
    }
}

fn kvm(tried: io::Result<KvmOutcome>) -> Ability {
    const EMULATION: &str = "use QEMU's emulation (-accel tcg), or a host whose hypervisor passes \
                             virtualization on";
    let outcome = match tried {
        Ok(outcome) => outcome,
        Err(error) => return fails(format!("not tested: {error}"), "try again"),
    };
    match outcome {
        KvmOutcome::Halted => works("a guest ran"),
        KvmOutcome::Untested => {
            Ability { usable: false, why: "not tested on this architecture".to_owned(), fix: None }
        }
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

fn failed(step: KvmStep) -> String {
    let what = match step {
        KvmStep::Machine => "no virtual machine can be made",
        KvmStep::Memory => "a virtual machine gets no memory",
        KvmStep::Processor => "no virtual processor can be made",
        KvmStep::Registers => "a virtual processor cannot be set up",
        KvmStep::Run => "no guest runs",
    };
    format!("{KVM} opens, but {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> io::Result<()> {
        Err(errno.into())
    }

    #[test]
    fn user_namespaces_name_the_setting() {
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
            let ability = user_namespaces(tried, settings);
            assert_eq!((ability.usable, ability.fix.is_none()), (usable, usable), "{words}");
            assert!(ability.why.contains(words), "{}", ability.why);
        }
    }

    #[test]
    fn pid_namespaces_say_when_they_do_not_matter() {
        for (tried, user, usable, words) in [
            (Ok(()), true, true, "one was made"),
            (refused(Errno::EPERM), true, false, "only root"),
            (refused(Errno::EPERM), false, false, "Operation not permitted"),
            (refused(Errno::ENOSPC), true, false, "No space"),
        ] {
            let ability = pid_namespaces(tried, user);
            assert_eq!((ability.usable, ability.fix.is_none()), (usable, usable), "{words}");
            assert!(ability.why.contains(words), "{}", ability.why);
        }
    }

    #[test]
    fn kvm_outcomes() {
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
            let ability = kvm(Ok(outcome));
            assert_eq!((ability.usable, ability.fix.is_none()), (usable, usable), "{words}");
            assert!(ability.why.contains(words), "{}", ability.why);
        }
        let untested = kvm(Ok(KvmOutcome::Untested));
        assert_eq!((untested.usable, untested.fix), (false, None));
        assert!(!kvm(Err(Errno::EMFILE.into())).usable);
    }

    #[test]
    fn settings_are_read_where_they_are() {
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
