//! Taps of guests.

use nix::sys::signal::Signal::SIGTERM;

use super::*;
use crate::common::{AT_MOST, status_field};

#[test]
fn a_tap_lives_as_long_as_its_descriptor() {
    if !have_root("a_tap_lives_as_long_as_its_descriptor") {
        return;
    }
    let netns = Netns::bare();
    within(&netns, async |links| {
        let br0 = name("br0");
        links.create_bridge(&bridge("br0")).await.unwrap();
        let tap = Tap::open(Path::new(TUN), &TapName::Numbered).unwrap();
        let other = Tap::open(Path::new(TUN), &TapName::Numbered).unwrap();
        assert_eq!((tap.name().as_str(), other.name().as_str()), ("nltap0", "nltap1"));
        assert_eq!(links.link(tap.name()).await.unwrap().index, tap.index());
        let undo = links.attach(tap.name(), &br0).await.unwrap().unwrap();
        links.up(tap.name()).await.unwrap();
        assert_eq!(links.host().await.unwrap().ports(&br0).len(), 1);

        // QEMU's copy keeps it, ours does not matter any more.
        let copy = tap.as_fd().try_clone_to_owned().unwrap();
        let name = tap.name().clone();
        drop((tap, other));
        assert!(goes(&links, &self::name("nltap1")).await);
        assert!(links.link(&name).await.is_ok());
        drop(copy);
        assert!(goes(&links, &name).await);
        links.undo(&undo).await.unwrap();
    });
}

#[test]
fn a_tap_takes_no_name_that_is_in_use() {
    if !have_root("a_tap_takes_no_name_that_is_in_use") {
        return;
    }
    let netns = Netns::bare();
    netns.ip("tuntap add mode tap theirs vnet_hdr");
    within(&netns, async |links| {
        for used in ["theirs", "lo"] {
            let exact = TapName::Exact(name(used));
            let error = Tap::open(Path::new(TUN), &exact).unwrap_err();
            assert!(matches!(error, TapError::InUse(_)), "{error}");
        }
        let tap = Tap::open(Path::new(TUN), &TapName::Exact(name("guest0"))).unwrap();
        assert_eq!(tap.name().as_str(), "guest0");
        drop(tap.into_fd());
        assert!(goes(&links, &name("guest0")).await);
        assert!(links.link(&name("theirs")).await.is_ok());
    });
}

#[test]
fn qemu_takes_the_tap_and_its_end_removes_it() {
    if !have_root("qemu_takes_the_tap_and_its_end_removes_it") {
        return;
    }
    let netns = Netns::bare();
    within(&netns, async |links| {
        let tap = Tap::open(Path::new(TUN), &TapName::Numbered).unwrap();
        let tap_name = tap.name().clone();
        let qemu = Path::new("/usr/bin/qemu-system-x86_64");
        let argv = "qemu -M q35 -accel tcg -S -nodefaults -display none -netdev tap,id=net0,fd=7 -device virtio-net-pci,netdev=net0,romfile="
            .split(' ')
            .map(Into::into)
            .collect::<Vec<_>>();
        let mut child = Spawn::new(qemu, &argv)
            .stdio(Stdio::Null, Stdio::Null, Stdio::Inherit)
            .fd(tap.into_fd(), 7)
            .own_group()
            .start()
            .unwrap();
        // QEMU opens /dev/kvm or nothing; what tells that it is up is the mark on its own thread.
        let fds = format!("/proc/{}/fdinfo/7", child.pid());
        let has = || fs::read_to_string(&fds).is_ok_and(|info| info.contains(tap_name.as_str()));
        assert!(wait_until(AT_MOST, has), "QEMU holds the tap");
        // Before QEMU catches SIGTERM, the signal would kill it.
        let catches = || {
            let caught = status_field(child.pid().as_raw(), "SigCgt");
            u64::from_str_radix(&caught, 16).is_ok_and(|set| set & (1 << (SIGTERM as u32 - 1)) != 0)
        };
        assert!(wait_until(AT_MOST, catches), "QEMU catches SIGTERM");
        assert!(links.link(&tap_name).await.is_ok(), "our copy is closed, QEMU's is not");
        let status = child.stop(SIGTERM, Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(0), "QEMU took the descriptor and ended in order");
        assert!(goes(&links, &tap_name).await);
    });
}
