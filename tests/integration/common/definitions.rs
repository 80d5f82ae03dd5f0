//! netlaunch as far as it works on definitions alone, with directories of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// netlaunch with directories of its own.
pub struct Host {
    dir: tempfile::TempDir,
    command: &'static str,
}

impl Host {
    /// For the verbs of this command.
    pub fn of(command: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config", "state", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Host { dir, command }
    }

    /// The same directories, for the verbs of another command.
    pub fn also(self, command: &'static str) -> Self {
        Host { command, ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netlaunch"));
        command
            .arg(self.command)
            .args(line.split_whitespace())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NETLAUNCH_CONFIG_DIR", self.path("config"))
            .env("NETLAUNCH_STATE_DIR", self.path("state"))
            .env("TMPDIR", self.path("tmp"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Standard output of what must succeed.
    pub fn good(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", err(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line of what must fail with this status.
    pub fn bad(&self, line: &str, status: i32) -> String {
        complaint(&self.run(line), status)
    }

    pub fn edit(&self, name: &str, editor: &str) -> Output {
        self.command(&format!("edit {name}")).env("EDITOR", editor).output().unwrap()
    }

    /// Returns the texts that failed edits have kept.
    pub fn kept(&self) -> Vec<PathBuf> {
        let dirs = fs::read_dir(self.path("tmp")).unwrap().map(|e| e.unwrap().path());
        dirs.flat_map(|dir| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path())).collect()
    }
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn complaint(output: &Output, status: i32) -> String {
    let text = err(output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().trim_start_matches("netlaunch: ").trim_start_matches("error: ").to_owned()
}
