//! The C interface: netlaunch.h agrees with the library, and programs in C and Python boot a guest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::scene::{HOST, LIMIT, Scene, launch, netns_with_resolver, nothing_left, qemu};
use crate::common::{AT_MOST, As, Guest, Sandbox, have_root, schema, start, text};

const HEADER: &str = include_str!("../../include/netlaunch.h");
const EXPORTS: &str = include_str!("../../src/capi/ffi.rs");

/// The flags under which netlaunch.h and the C programs have no warning.
const STRICT: [&str; 5] = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"];

/// A path in the source tree.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Whether a program can be run; says so if not.
fn have(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("skipped {test}: there is no {program} (run ./tests/setup)");
    }
    found
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Builds libnetlaunch.so and libnetlaunch.a as netlaunch.h says, and returns their directory.
fn library() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--offline", "--lib", "--no-default-features"]);
    cargo.args(["--features", "capi", "--crate-type", "cdylib,staticlib"]);
    cargo.args(["--", "-Clink-arg=-Wl,-soname,libnetlaunch.so.0"]);
    succeed(cargo.current_dir(source("")));
    let program = Path::new(env!("CARGO_BIN_EXE_netlaunch"));
    let dir = program.parent().unwrap();
    assert!(dir.join("libnetlaunch.a").exists(), "no library in {}", dir.display());
    dir.to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linked {
    Static,
    Shared,
}

/// The libraries that a static link needs, from the pkg-config file.
fn private_libraries() -> Vec<&'static str> {
    let file = include_str!("../../netlaunch.pc.in");
    let line = file.lines().find_map(|line| line.strip_prefix("Libs.private: "));
    line.unwrap().split(' ').collect()
}

/// Compiles a C program into the sandbox, with the shared library beside it.
fn compile(sandbox: &Sandbox, program: &str, linked: Linked) -> PathBuf {
    let library = library();
    let made = sandbox.path("bin/program");
    let mut cc = Command::new("cc");
    cc.args(STRICT).arg("-I").arg(source("include")).arg("-o").arg(&made).arg(source(program));
    match linked {
        Linked::Static => cc.arg(library.join("libnetlaunch.a")).args(private_libraries()),
        Linked::Shared => cc.arg(shared(sandbox, &library)).arg("-lpthread"),
    };
    succeed(&mut cc);
    made
}

/// Copies the shared library into the sandbox under the name that programs look for.
fn shared(sandbox: &Sandbox, library: &Path) -> PathBuf {
    let copy = sandbox.path("bin/libnetlaunch.so.0");
    std::fs::copy(library.join("libnetlaunch.so"), &copy).unwrap();
    copy
}

/// A program of the sandbox that finds the shared library.
fn program(sandbox: &Sandbox, path: &Path) -> Command {
    let mut command = sandbox.program(path);
    command.env("LD_LIBRARY_PATH", sandbox.path("bin"));
    command
}

/// The text without comments, and with one space for each run of white space.
fn bare(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    let lines = code.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// The Rust type for a C type.
fn rust_type(c: &str) -> &'static str {
    match c {
        "void" => "",
        "int" => "c_int",
        "uint32_t" => "u32",
        "int *" => "*mut c_int",
        "char *" => "*mut c_char",
        "const char *" => "*const c_char",
        "char **" => "*mut *mut c_char",
        "struct netlaunch_launch *" => "*mut Handle",
        "const struct netlaunch_launch *" => "*const Handle",
        other => panic!("no Rust type for {other:?}"),
    }
}

/// Splits `char *name` into the type and the name.
fn declared(text: &str) -> (&str, &str) {
    let start = text.rfind([' ', '*']).unwrap() + 1;
    (text[..start].trim_end(), &text[start..])
}

/// The functions of the header, each as Rust declares it.
fn header_functions() -> BTreeMap<String, String> {
    let code = bare(HEADER).replace("extern \"C\" {", "");
    let functions = code.split(';').filter_map(|part| part.trim().strip_suffix(')'));
    let rust = functions.map(|function| {
        let (head, parameters) = function.split_once('(').unwrap();
        let (result, name) = declared(head.trim());
        let parameters = parameters.split(", ").filter(|parameter| *parameter != "void");
        let parameters =
            parameters.map(declared).map(|(c, name)| format!("{name}: {}", rust_type(c)));
        let parameters = parameters.collect::<Vec<_>>().join(", ");
        let result = Some(rust_type(result)).filter(|result| !result.is_empty());
        let result = result.map(|result| format!(" -> {result}")).unwrap_or_default();
        (name.to_owned(), format!("({parameters}){result}"))
    });
    rust.collect()
}

/// The exported functions of the library.
fn exported_functions() -> BTreeMap<String, String> {
    let functions = EXPORTS.split("#[unsafe(no_mangle)]\n").skip(1);
    let signatures = functions.map(|function| {
        let (signature, _) = function.split_once(" {\n").unwrap();
        let signature = signature.split_whitespace().collect::<Vec<_>>().join(" ");
        let signature = signature.replace("( ", "(").replace(", )", ")");
        let signature = signature.strip_prefix("unsafe ").unwrap_or(&signature);
        let signature = signature.strip_prefix("extern \"C\" fn ").unwrap();
        let (name, rest) = signature.split_at(signature.find('(').unwrap());
        (name.to_owned(), rest.to_owned())
    });
    signatures.collect()
}

#[test]
fn the_header_declares_exactly_the_exported_functions() {
    let exported = exported_functions();
    assert!(exported.len() > 10, "{exported:#?}");
    assert_eq!(header_functions(), exported);
}

#[test]
fn the_constants_of_the_header_are_those_of_the_library() {
    let version = include_str!("../../src/capi/mod.rs");
    let defines = HEADER.lines().filter_map(|line| line.strip_prefix("#define NETLAUNCH_"));
    let mut compared = 0;
    for (name, value) in defines.filter_map(|line| line.split_once(' ')) {
        let value = value.split("/*").next().unwrap().trim().trim_matches(['(', ')']);
        let (c_int, u32) =
            (format!("const {name}: c_int = {value};"), format!("const {name}: u32 = {value};"));
        assert!(EXPORTS.contains(&c_int) || version.contains(&u32), "{name} is not {value}");
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// Every schema of the C interface is named in the header, and nothing else is.
#[test]
fn the_header_names_the_schemas() {
    let schemas = std::fs::read_dir(source("conf/schema")).unwrap();
    let names = schemas.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let schemas: Vec<String> = names.collect();
    for name in schemas.iter().filter(|name| name.starts_with("capi-")) {
        assert!(HEADER.contains(name.as_str()), "{name}");
    }
    for word in HEADER.split_whitespace().filter(|word| word.contains(".schema.json")) {
        let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        assert!(schemas.iter().any(|schema| schema == name), "{name}");
    }
}

#[test]
fn the_header_compiles_alone_without_warnings() {
    let test = "the_header_compiles_alone_without_warnings";
    for (compiler, options) in [("cc", &STRICT[..]), ("c++", &STRICT[1..])] {
        if have(compiler, test) {
            let language = if compiler == "cc" { "c" } else { "c++" };
            let mut command = Command::new(compiler);
            command.args(options).args(["-fsyntax-only", "-x", language]);
            succeed(command.arg("-include").arg(source("include/netlaunch.h")).arg("/dev/null"));
        }
    }
}

#[test]
fn pkg_config_reads_the_installed_file() {
    if !have("pkg-config", "pkg_config_reads_the_installed_file") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = include_str!("../../netlaunch.pc.in").replace("@PREFIX@", "/opt/n");
    let file = file.replace("@LIBDIR@", "/opt/n/lib").replace("@VERSION@", "0.1.0");
    std::fs::write(dir.path().join("netlaunch.pc"), file).unwrap();
    let mut command = Command::new("pkg-config");
    command.args(["--cflags", "--libs", "netlaunch"]).env("PKG_CONFIG_PATH", dir.path());
    assert_eq!(succeed(&mut command).trim(), "-I/opt/n/include -L/opt/n/lib -lnetlaunch");
}

/// The values behind `key`, each on a line of its own.
fn all_printed(output: &str, key: &str) -> Vec<Value> {
    let lines = output.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first value behind `key`.
fn printed(output: &str, key: &str) -> Value {
    let mut all = all_printed(output, key).into_iter();
    all.next().unwrap_or_else(|| panic!("no {key} in {output}"))
}

/// Each value behind `key` is valid by the schema; there are at least `least`.
fn all_valid(output: &str, key: &str, form: &str, least: usize) {
    let all = all_printed(output, key);
    assert!(all.len() >= least, "{} of {key} in {output}", all.len());
    for value in &all {
        schema::valid(form, value);
        // An object with a member more is not valid: the schema is complete.
        let mut more = value.clone();
        more["more"] = 1.into();
        assert_ne!(schema::faults(form, &more), [] as [String; 0], "{form}: {value}");
    }
}

#[test]
fn each_function_does_what_the_header_says() {
    let test = "each_function_does_what_the_header_says";
    if !(have_root(test) && have("cc", test)) {
        return;
    }
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(As::User, Some(&netns));
    let calls = compile(&sandbox, "tests/fixtures/capi/calls.c", Linked::Shared);
    let mut command = program(&sandbox, &calls);
    command.arg(sandbox.state());
    let output = start(command).output(LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = text(&output.stdout);
    let (plan, carried_out) = (printed(&output, "plan"), printed(&output, "carried-out"));
    schema::valid("plan", &plan);
    schema::valid("plan", &carried_out);
    all_valid(&output, "request", "capi-request", 1);
    all_valid(&output, "error", "capi-error", 5);
    all_valid(&output, "event", "capi-event", 1);
    all_valid(&output, "outcome", "capi-outcome", 1);
    let launch = printed(&output, "launch");
    schema::valid("ps", &launch);
    let [launch] = launch["launches"].as_array().unwrap().as_slice() else { panic!("{launch}") };
    assert_eq!(launch["dir"], carried_out["files"]["dir"]);
    assert_eq!(launch["backend"], "passt");
    assert!(launch["qemu"].is_null() && launch["passt"]["pid"].is_number(), "{launch}");
    nothing_left(&sandbox);
}

/// A program boots the guest: it prints the launch and the events, the guest has its lease and
/// serves the published port, and QEMU's exit status is the program's.
fn boots(who: As, test: &str, command: impl FnOnce(&Sandbox) -> Command) {
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    let mut command = command(&sandbox);
    let script = "serve_tcp 80 tcp-answer\necho 'UP .'\nread go\nexit_qemu 33";
    command.arg("2280:80").args(qemu(&sandbox, &guest, script));
    let mut scene = Scene::start(command);
    let printed: Value = serde_json::from_str(&scene.hear("launch: ")).unwrap();
    let printed = if printed["launches"].is_array() { &printed["launches"][0] } else { &printed };
    assert!(scene.hear("event: ").contains("\"started\""));
    assert!(scene.hear("LEASE ").starts_with("ip=10.0.2.15 prefix=24 router=10.0.2.2 "));
    scene.hear("UP ");
    assert_eq!(netns.ask_tcp(2280, AT_MOST), "tcp-answer\n", "{}", scene.said());
    let mut shown = launch(&sandbox);
    // `netlaunch ps` adds the addresses of guests on bridges, which the library does not read.
    for nic in shown["nics"].as_array_mut().unwrap() {
        assert_eq!(nic.as_object_mut().unwrap().remove("addresses"), Some(Value::Null));
    }
    assert_eq!(*printed, shown);
    scene.say("go");
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    assert!(scene.said().contains("\"ended\""), "{}", scene.said());
    all_valid(&scene.out.text(), "event:", "capi-event", 2);
    assert_eq!(scene.err.text(), "");
    nothing_left(&sandbox);
}

#[test]
fn the_c_example_boots_a_guest_with_the_shared_library() {
    let test = "the_c_example_boots_a_guest_with_the_shared_library";
    if have("cc", test) {
        boots(As::User, test, |sandbox| {
            program(sandbox, &compile(sandbox, "examples/appliance.c", Linked::Shared))
        });
    }
}

#[test]
fn the_c_example_boots_a_guest_with_the_static_library() {
    let test = "the_c_example_boots_a_guest_with_the_static_library";
    if have("cc", test) {
        boots(As::Root, test, |sandbox| {
            sandbox.program(&compile(sandbox, "examples/appliance.c", Linked::Static))
        });
    }
}

#[test]
fn the_python_example_boots_a_guest() {
    let test = "the_python_example_boots_a_guest";
    if have("python3", test) {
        boots(As::User, test, |sandbox| {
            shared(sandbox, &library());
            let example = sandbox.path("bin/appliance.py");
            std::fs::copy(source("examples/appliance.py"), &example).unwrap();
            let mut command = program(sandbox, Path::new("/usr/bin/python3"));
            command.arg("-B").arg(example);
            command
        });
    }
}
