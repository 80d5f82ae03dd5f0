//! `netlaunch wrap --install`: the files that it makes, and the words about them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::common::wrapped::{NAME, Wrapped};
use crate::common::{finish, text};

#[test]
fn an_installation_makes_real_files_and_keeps_foreign_ones() {
    let wrapped = Wrapped::new();
    let dir = wrapped.sandbox.path("run/stand-ins");
    let real = wrapped.real("exit 0");
    let install = |names: &[&str]| {
        let mut args = vec!["wrap", "--install", dir.to_str().unwrap()];
        args.extend(names);
        let mut command = wrapped.sandbox.netlaunch(&args);
        let path = [wrapped.dir(), real.parent().unwrap().to_owned(), dir.clone()];
        command.env("PATH", std::env::join_paths(path).unwrap());
        finish(command)
    };
    let output = install(&[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let line =
        format!("{}/{NAME}: made, a copy; stands in for {}\n", dir.display(), real.display());
    let hint = said.strip_prefix(&line).unwrap();
    let first = wrapped.dir();
    let (shown, first) = (dir.display(), first.display());
    assert_eq!(
        hint,
        format!(
            "put {shown} before {first} in PATH to use them: a call finds {first}/{NAME} first\n"
        )
    );
    let meta = fs::symlink_metadata(dir.join(NAME)).unwrap();
    assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o755);

    fs::write(dir.join("kvm"), "mine").unwrap();
    symlink(wrapped.program(), dir.join("qemu-kvm")).unwrap();
    let output = install(&["kvm", NAME, "qemu-kvm", "qemu-system-arm", NAME]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("kvm is another program and stays"));
    assert_eq!(fs::read_to_string(dir.join("kvm")).unwrap(), "mine");
    let said = text(&output.stdout);
    for (name, words) in [
        (NAME, "updated, a copy; stands in for"),
        ("qemu-kvm", "updated, a hard link; has no real program yet"),
        ("qemu-system-arm", "made, a hard link; has no real program yet"),
    ] {
        let of_name = |line: &&str| line.contains(&format!("/{name}: "));
        let found: Vec<_> = said.lines().filter(of_name).collect();
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
        assert!(fs::symlink_metadata(dir.join(name)).unwrap().is_file());
    }
    let left: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn an_installation_says_where_its_directory_must_be_in_path() {
    let wrapped = Wrapped::new();
    let dir = wrapped.sandbox.path("run/stand-ins");
    let real = wrapped.real("exit 0");
    let bin = real.parent().unwrap().to_owned();
    let link = wrapped.sandbox.path("run/link");
    symlink(&dir, &link).unwrap();
    let install = |name: &str, path: &[&PathBuf]| {
        let args = ["wrap", "--install", dir.to_str().unwrap(), name];
        let mut command = wrapped.sandbox.netlaunch(&args);
        command.env("PATH", std::env::join_paths(path).unwrap());
        text(&finish(command).stdout).lines().skip(1).map(str::to_owned).collect::<String>()
    };
    let (shown, before) = (dir.display(), bin.display());
    let behind = format!(
        "put {shown} before {before} in PATH to use them: a call finds {before}/{NAME} first"
    );
    let absent = format!("put {shown} before the other directories of PATH to use them");
    for (name, path, expected) in [
        (NAME, &[&bin, &dir][..], behind.as_str()),
        (NAME, &[&dir, &bin], ""),
        (NAME, &[&link, &bin], ""),
        (NAME, &[&bin], &absent),
        // No program before it has this name.
        ("qemu-system-arm", &[&bin, &dir], ""),
    ] {
        assert_eq!(install(name, path), expected, "{name} {path:?}");
    }
    // Without a stand-in there is nothing to use.
    fs::write(dir.join("kvm"), "mine").unwrap();
    assert_eq!(install("kvm", &[&bin]), "");
}

#[test]
fn an_installation_refuses_other_names_and_a_directory_that_it_cannot_make() {
    let wrapped = Wrapped::new();
    let file = wrapped.sandbox.path("config/file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (args, status, message) in [
        (&["--install", file, "qemu-img"][..], 2, "\"qemu-img\" is not the name of a QEMU"),
        (&["--install", file, "../kvm"], 2, "is not the name of a QEMU"),
        (&["--install", file, "kvm"], 125, "cannot be made"),
        (&["kvm"], 2, "--install"),
        (&[], 2, "name QEMU behind --, or a directory with --install"),
        (&["--id", "a", "--", "q"], 2, "drop --id"),
        (&["--keep-nics", "--", "q"], 2, "drop --keep-nics"),
        (&["--ready-fd", "7", "--", "q"], 2, "drop --ready-fd"),
    ] {
        let args: Vec<&str> = ["wrap"].iter().chain(args).copied().collect();
        let output = finish(wrapped.sandbox.netlaunch(&args));
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
    }
}
