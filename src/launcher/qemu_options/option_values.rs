//! Tells for each QEMU option whether the next word is its value.
//!
//! QEMU has no rule for this: in `-append "-netdev user"` the second word is a kernel command line,
//! and in `-S -netdev user` it is a network. So this module lists the options of every QEMU since
//! 1.0, also the removed ones. tests/integration/qemu_options.rs compares the lists with the
//! installed QEMU.
//!
//! An option that is missing here is unknown, not an error: a newer QEMU may have it.

/// The options without a value.
const FLAGS: &str = "\
    S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-hax \
    enable-kvm enable-nesting enable-sync-profile full-screen h help jitdump kvm localtime \
    mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-kvm no-kvm-irqchip no-kvm-pit \
    no-kvm-pit-reinjection no-quit no-reboot no-shutdown no-user-config nodefaults nodefconfig \
    nographic old-param only-migratable perfmap portrait preconfig rtc-td-hack s sdl \
    semihosting show-cursor singlestep snapshot std-vga tdf usb version win2k-hack xen-attach \
    xen-create xen-domid-restrict";

/// The options with a value.
const VALUED: &str = "\
    D L M accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bt \
    cdrom chardev chroot clock compat cpu d debugcon device dfilter display drive dtb \
    dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda hdachs hdb hdc hdd icount incoming \
    initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock name net netdev \
    nic numa object option-rom overcommit parallel pcidevice pflash pidfile plugin prom-env \
    qmp qmp-pretty qtest qtest-log readconfig redir rotate rtc run-with runas sandbox sd seed \
    semihosting-config serial set shim smb smbios smp soundhw spice startdate tb-size tftp \
    tpmdev trace usbdevice uuid vga virtfs virtfs_synth virtioconsole vnc watchdog \
    watchdog-action writeconfig xen-domid";

/// Returns whether the option `name`, without its dashes, takes a value; `None` for an unknown
/// option.
pub fn takes_value(name: &str) -> Option<bool> {
    let lists = |names: &str| names.split(' ').any(|listed| listed == name);
    if lists(FLAGS) { Some(false) } else { lists(VALUED).then_some(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_disjoint() {
        let [flags, valued] = [FLAGS, VALUED].map(|list| list.split(' ').collect::<Vec<_>>());
        assert!(flags.is_sorted() && valued.is_sorted());
        assert!(flags.iter().all(|name| !valued.contains(name)));
    }

    #[test]
    fn an_option_with_a_value_a_flag_and_an_unknown_option_differ() {
        let answers = ["append", "S", "nosuch", "", " "].map(takes_value);
        assert_eq!(answers, [Some(true), Some(false), None, None, None]);
    }
}
