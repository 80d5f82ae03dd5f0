//! Launches that end at once, as the user of a sandbox in a namespace with a route.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::common::{As, Netns, Sandbox, USER, text};

/// A launch that ends at once, by an option that QEMU refuses, once the network serves.
/// Its card is not the machine's, which an older passt serves badly.
pub const LAUNCH: [&str; 7] =
    ["--device", "virtio-net-pci", "--", "qemu-system-x86_64", "-M", "q35", "-no-such-option"];
/// A QEMU that waits, without a card's bus.
pub const WAITS: [&str; 9] =
    ["-M", "none", "-display", "none", "-monitor", "none", "-serial", "none", "-S"];
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Scene {
    pub sandbox: Sandbox,
    pub netns: Netns,
}

impl Scene {
    pub fn new(who: As) -> Self {
        let netns = Netns::routed();
        Scene { sandbox: Sandbox::new(who, Some(&netns)), netns }
    }

    /// A shell's line as the sandbox's user; `{}` in it is netlaunch.
    pub fn shell(&self, line: &str) -> Command {
        let netlaunch = self.sandbox.path("bin/netlaunch").display().to_string();
        let mut command = self.sandbox.program(Path::new("sh"));
        command.args(["-c", &line.replace("{}", &netlaunch)]);
        command
    }

    /// The options in front of [`LAUNCH`], by a shell behind `before`.
    pub fn launch(&self, before: &str, options: &str) -> Command {
        self.shell(&format!("{before} {{}} {options} {}", LAUNCH.join(" ")))
    }

    pub fn dir(&self, name: impl AsRef<Path>, mode: u32) -> PathBuf {
        let path = self.sandbox.path("").join(name);
        fs::create_dir(&path).unwrap();
        if self.sandbox.who == As::User {
            chown(&path, Some(USER), Some(USER)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// The launch was carried out up to QEMU's own refusal; returns what was said.
pub fn launched(output: &Output) -> String {
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("no-such-option"), "{said}");
    said
}

pub fn odd(name: &[u8]) -> OsString {
    OsString::from_vec(name.to_vec())
}

pub fn bytes(value: &Value) -> Vec<u8> {
    value.as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect()
}
