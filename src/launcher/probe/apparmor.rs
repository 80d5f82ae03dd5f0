//! Finds the AppArmor profile that confines a program, and the directories where the program may
//! create files.
//!
//! Debian's profile for passt allows sockets below /tmp and the home directories only. Elsewhere
//! passt cannot create its socket, and its error does not mention AppArmor. So netlaunch looks for
//! the profile before it starts passt: in the kernel's list of loaded profiles if this user may
//! read it, otherwise in the profile's file. It reads nothing more if AppArmor is off.

use std::fs;
use std::path::{Path, PathBuf};

use crate::types::facts::Confinement;

/// A profile of AppArmor, as its file declares it or as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    name: String,
    /// The pattern for the paths of its programs; this is the name if the profile has no pattern.
    pub(super) programs: String,
    enforced: bool,
}

/// Returns the confinement of the program at `path` (canonical), for a user with this home
/// directory.
///
/// Every file is read below `root`: `/`, or a copy of a host's files in a test. The result is
/// `None` if the program is not confined, or if no readable file shows a confinement.
pub(super) fn confinement(root: &Path, path: &Path, home: Option<&Path>) -> Option<Confinement> {
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let enabled = read("sys/module/apparmor/parameters/enabled")?;
    if enabled.trim() != "Y" {
        return None;
    }
    let program = path.to_str()?;
    let declared = declared(root, program);
    let name = match read("sys/kernel/security/apparmor/profiles") {
        Some(list) => {
            let known = declared.as_ref().map(|profile| profile.name.as_str());
            loaded(&list)
                .into_iter()
                .find(|p| {
                    p.enforced && (Some(p.name.as_str()) == known || glob(&p.programs, program))
                })?
                .name
        }
        None => declared.filter(|profile| profile.enforced)?.name,
    };
    let writable = std::iter::once(PathBuf::from("/tmp"))
        .chain(home.filter(|home| is_home(home)).map(Path::to_owned))
        .collect();
    Some(Confinement { profile: name, writable })
}

/// Returns whether `@{HOME}` of AppArmor's stock tunables/global covers this directory.
///
/// It covers /root and the directories directly below /home.
fn is_home(home: &Path) -> bool {
    home == Path::new("/root") || home.parent() == Some(Path::new("/home"))
}

/// Returns the profile for this program in /etc/apparmor.d.
///
/// The name of the profile's file is the path of the program with dots (`usr.bin.passt`), or the
/// name of the program (`passt`).
fn declared(root: &Path, program: &str) -> Option<Profile> {
    let dir = root.join("etc/apparmor.d");
    let by_path = program.trim_start_matches('/').replace('/', ".");
    let by_name = Path::new(program).file_name()?.to_str()?;
    [by_path.as_str(), by_name].into_iter().find_map(|file| {
        let text = fs::read_to_string(dir.join(file)).ok()?;
        let mut profile = profiles(&text).into_iter().find(|p| glob(&p.programs, program))?;
        // aa-disable and aa-complain put a link with the file's name into these directories.
        for off in ["disable", "force-complain"] {
            profile.enforced &= fs::symlink_metadata(dir.join(off).join(file)).is_err();
        }
        Some(profile)
    })
}

/// Returns the profiles that a file declares (apparmor.d(5)): `[profile] [NAME] [PATTERN]
/// [flags=(...)] {`.
pub(super) fn profiles(text: &str) -> Vec<Profile> {
    text.lines().filter_map(header).collect()
}

/// Returns the profile that this line declares, if it is the first line of a profile.
fn header(line: &str) -> Option<Profile> {
    let (head, _) = line.trim().split_once(" #").unwrap_or((line.trim(), ""));
    let head = head.trim_end().strip_suffix('{')?.trim_end();
    let (head, flags) = match head.split_once("flags=(") {
        Some((head, flags)) => (head, flags),
        None => (head, ""),
    };
    let mut words = head.split_whitespace();
    let first = words.next()?;
    let name = match first {
        "profile" => words.next()?,
        _ if first.starts_with('/') || first.starts_with("@{") => first,
        _ => return None,
    };
    let unquoted = |word: &str| word.trim_matches('"').to_owned();
    let enforced = !["complain", "unconfined"]
        .iter()
        .any(|mode| flags.split([',', ' ', ')']).any(|flag| flag == *mode));
    // The word after the name may be extended attributes, `xattrs=(...)`, instead of a pattern.
    let programs = words.next().filter(|word| !word.contains('=')).unwrap_or(name);
    Some(Profile { name: unquoted(name), programs: unquoted(programs), enforced })
}

/// Returns the profiles of the kernel's list, which has lines such as `passt (enforce)`.
pub(super) fn loaded(list: &str) -> Vec<Profile> {
    list.lines()
        .filter_map(|line| {
            let (name, mode) = line.rsplit_once(" (")?;
            let enforced = matches!(mode.strip_suffix(')')?, "enforce" | "kill" | "prompt");
            Some(Profile { name: name.to_owned(), programs: name.to_owned(), enforced })
        })
        .collect()
}

/// Returns whether a pattern of AppArmor covers a path.
///
/// It knows `?`, `*` (within a directory), `**`, `{a,b}` and the variable `@{bin}`. Every other
/// character stands for itself.
pub(super) fn glob(pattern: &str, path: &str) -> bool {
    let pattern = pattern.replace("@{bin}", "/{usr/,}{s,}bin");
    alternatives(&pattern).iter().any(|one| wildcard(one.as_bytes(), path.as_bytes()))
}

/// The largest number of patterns that one pattern with braces is expanded to.
const ALTERNATIVES: usize = 64;

/// Expands the braces of a pattern, innermost pairs first.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(one) = open.pop() {
        let Some((head, choices, tail)) = innermost(&one) else {
            done.push(one);
            continue;
        };
        for choice in choices.split(',') {
            if done.len() + open.len() < ALTERNATIVES {
                open.push(format!("{head}{choice}{tail}"));
            }
        }
    }
    done
}

/// Returns the text before, in and after the first pair of braces that contains no other braces.
fn innermost(pattern: &str) -> Option<(&str, &str, &str)> {
    let (before, tail) = pattern.split_once('}')?;
    let (head, choices) = before.rsplit_once('{')?;
    Some((head, choices, tail))
}

/// Returns whether a pattern without braces covers a path.
///
/// The time grows with the product of both lengths, whatever the number of wildcards: the function
/// goes through the pattern once, with the places of the path that the pattern so far can lead to.
fn wildcard(pattern: &[u8], path: &[u8]) -> bool {
    let mut places = vec![false; path.len() + 1];
    places[0] = true;
    let mut rest = pattern;
    while let [first, after @ ..] = rest {
        let is_double = *first == b'*' && after.first() == Some(&b'*');
        rest = if is_double { &after[1..] } else { after };
        let mut before = false;
        for (at, place) in places.iter_mut().enumerate() {
            let byte = at.checked_sub(1).and_then(|at| path.get(at));
            let was = std::mem::replace(
                place,
                match first {
                    b'*' => *place || before && (is_double || byte != Some(&b'/')),
                    b'?' => before && byte != Some(&b'/'),
                    _ => before && byte == Some(first),
                },
            );
            // A wildcard continues from a place that it has reached itself.
            before = if *first == b'*' { *place } else { was };
        }
    }
    places.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_many_wildcards_needs_no_more_time_than_its_length() {
        let (pattern, path) = (format!("/{}b", "**a".repeat(40)), format!("/{}", "a".repeat(80)));
        assert!(!glob(&pattern, &path));
        assert!(glob(&pattern, &format!("{path}b")));
    }

    /// The first lines of profiles as distributions write them, and lines that declare no profile.
    const FILE: &str = "\
abi <abi/3.0>,
include <tunables/global>
# profile old /usr/bin/passt {
profile passt /usr/bin/passt{,.avx2} flags=(attach_disconnected) {
  owner /tmp/** w,
  @{bin}/other rix,
}
/usr/sbin/man flags=(complain) {  # quoted names, too
profile \"pasta\" \"/usr/bin/pasta{,.avx2}\" {
profile bwrap /usr/bin/bwrap flags=(attach_disconnected,unconfined) {
@{bin}/thing {
";

    fn profile(name: &str, programs: &str, enforced: bool) -> Profile {
        Profile { name: name.into(), programs: programs.into(), enforced }
    }

    #[test]
    fn each_first_line_of_a_profile_gives_name_pattern_and_mode() {
        assert_eq!(
            profiles(FILE),
            [
                profile("passt", "/usr/bin/passt{,.avx2}", true),
                profile("/usr/sbin/man", "/usr/sbin/man", false),
                profile("pasta", "/usr/bin/pasta{,.avx2}", true),
                profile("bwrap", "/usr/bin/bwrap", false),
                profile("@{bin}/thing", "@{bin}/thing", true),
            ]
        );
    }

    #[test]
    fn a_listed_profile_is_enforced_in_the_modes_enforce_kill_and_prompt() {
        let list = "passt (enforce)\nman_filter (complain)\n/usr/bin/a (b) (kill)\nbwrap (unconfined)\nbad\n";
        assert_eq!(
            loaded(list),
            [
                profile("passt", "passt", true),
                profile("man_filter", "man_filter", false),
                profile("/usr/bin/a (b)", "/usr/bin/a (b)", true),
                profile("bwrap", "bwrap", false),
            ]
        );
    }

    #[test]
    fn a_pattern_covers_the_paths_that_apparmor_covers() {
        for (pattern, path, expected) in [
            ("/usr/bin/passt{,.avx2}", "/usr/bin/passt", true),
            ("/usr/bin/passt{,.avx2}", "/usr/bin/passt.avx2", true),
            ("/usr/bin/passt{,.avx2}", "/usr/bin/passt2", false),
            ("/usr/bin/passt", "/usr/local/bin/passt", false),
            ("/{usr/{local/,},}bin/passt", "/usr/local/bin/passt", true),
            ("/{usr/{local/,},}bin/passt", "/bin/passt", true),
            ("@{bin}/passt", "/usr/sbin/passt", true),
            ("/usr/*/passt", "/usr/bin/passt", true),
            ("/usr/*/passt", "/usr/local/bin/passt", false),
            ("/usr/**/passt", "/usr/local/bin/passt", true),
            ("/usr/bin/pass?", "/usr/bin/passt", true),
            ("/a}b{c", "/a}b{c", true),
        ] {
            assert_eq!(glob(pattern, path), expected, "{pattern} {path}");
        }
        assert!(alternatives(&"{a,b}".repeat(30)).len() <= ALTERNATIVES);
    }

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Tree(tempfile::tempdir().unwrap());
            for (file, text) in files {
                tree.add(file, text);
            }
            tree
        }

        fn add(&self, file: &str, text: &str) {
            let file = self.0.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn profile(&self, program: &str) -> Option<String> {
            confinement(self.0.path(), Path::new(program), None).map(|c| c.profile)
        }
    }

    const ENABLED: (&str, &str) = ("sys/module/apparmor/parameters/enabled", "Y\n");
    const DECLARED: (&str, &str) = ("etc/apparmor.d/usr.bin.passt", FILE);
    const LIST: &str = "sys/kernel/security/apparmor/profiles";
    const PASST: &str = "/usr/bin/passt";

    #[test]
    fn the_profiles_file_is_used_when_the_kernels_list_cannot_be_read() {
        let tree = Tree::new(&[ENABLED, DECLARED]);
        assert_eq!(tree.profile(PASST).as_deref(), Some("passt"));
        assert_eq!(tree.profile("/usr/local/bin/passt"), None, "another program");
        tree.add("etc/apparmor.d/disable/usr.bin.passt", "");
        assert_eq!(tree.profile(PASST), None, "disabled");
    }

    #[test]
    fn no_program_is_confined_when_apparmor_is_off() {
        assert_eq!(Tree::new(&[DECLARED]).profile(PASST), None);
        assert_eq!(Tree::new(&[(ENABLED.0, "N\n"), DECLARED]).profile(PASST), None);
    }

    #[test]
    fn the_kernels_list_has_priority_over_the_profiles_file() {
        for (list, expected) in [
            ("passt (enforce)\n", Some("passt")),
            ("passt (complain)\n", None),
            ("", None),
            ("/usr/bin/passt{,.avx2} (enforce)\n", Some("/usr/bin/passt{,.avx2}")),
        ] {
            let tree = Tree::new(&[ENABLED, DECLARED, (LIST, list)]);
            assert_eq!(tree.profile(PASST).as_deref(), expected, "{list}");
        }
    }

    #[test]
    fn the_home_directory_is_writable_only_if_apparmors_home_covers_it() {
        let tree = Tree::new(&[ENABLED, DECLARED]);
        for (home, expected) in [
            (Some("/home/ann"), vec!["/tmp", "/home/ann"]),
            (Some("/root"), vec!["/tmp", "/root"]),
            (Some("/var/lib/ci"), vec!["/tmp"]),
            (Some("/home"), vec!["/tmp"]),
            (None, vec!["/tmp"]),
        ] {
            let got =
                confinement(tree.0.path(), Path::new(PASST), home.map(Path::new)).unwrap().writable;
            assert_eq!(got, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }
}
