//! The arguments of `netlaunch wrap`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Args, ValueHint};

use super::launch::LaunchArgs;

/// The arguments of `netlaunch wrap`: QEMU's command line with options of a launch, or a directory
/// and names.
#[derive(Debug, Clone, Default, Args)]
pub struct WrapArgs {
    /// Puts stand-ins with these names into this directory [default: each QEMU in PATH]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[arg(conflicts_with = "qemu_command")]
    pub install: Option<PathBuf>,
    /// The names: qemu-system-*, qemu-kvm or kvm
    #[arg(value_name = "NAME")]
    pub names: Vec<OsString>,
    /// The options for the networks that move.
    #[command(flatten)]
    pub launch: LaunchArgs,
}

/// The options of a launch that a stand-in cannot use: it adds no NIC, prints nothing, reports to
/// its caller as QEMU does, and becomes QEMU as the caller's user.
const UNUSABLE: [&str; 20] = [
    "network",
    "bandwidth",
    "bridge",
    "filter",
    "filter_param",
    "net",
    "keep_nics",
    "id",
    "mac",
    "device",
    "queues",
    "user",
    "stop_timeout",
    "detach",
    "args_file",
    "ready_fd",
    "vmm",
    "listen",
    "listen_fd",
    "print",
];

/// Hides an option that a stand-in cannot use from the help and from completions.
pub(super) fn without_unusable(arg: Arg) -> Arg {
    let is_unusable = UNUSABLE.contains(&arg.get_id().as_str());
    if is_unusable { arg.hide(true) } else { arg }
}

impl WrapArgs {
    /// Returns the first given option that a stand-in cannot use.
    pub fn unusable(&self) -> Option<&'static str> {
        let launch = &self.launch;
        let given = [
            launch.network.is_some(),
            launch.bandwidth.is_some(),
            launch.bridge.is_some(),
            launch.filter.is_some(),
            !launch.filter_param.is_empty(),
            !launch.net.is_empty(),
            launch.keep_nics,
            launch.id.is_some(),
            launch.mac.is_some(),
            launch.device.is_some(),
            launch.queues.is_some(),
            launch.user.is_some(),
            launch.stop_timeout.is_some(),
            launch.detach,
            launch.args_file.is_some(),
            launch.ready_fd.is_some(),
            launch.vmm.is_some(),
            launch.listen.is_some(),
            launch.listen_fd.is_some(),
            launch.print.is_some(),
        ];
        UNUSABLE.into_iter().zip(given).find(|(_, given)| *given).map(|(option, _)| option)
    }
}
