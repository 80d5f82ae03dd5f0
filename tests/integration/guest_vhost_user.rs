//! Tests the vhost-user transport with a real guest, if the installed passt supports it.

use crate::common::scene::{
    HOST, Scene, command_line, launch, netns_with_resolver, nothing_left, passt_has, passt_option,
    passt_path,
};
use crate::common::{AT_MOST, As, Guest, Sandbox, have_root, skipped};

fn works(who: As) {
    let test = format!("vhost-user as {who:?}");
    let (true, Some(guest)) = (have_root(&test), Guest::find(&test)) else { return };
    if !passt_has("vhost-user") {
        return skipped(&test, format_args!("{} has no --vhost-user", passt_path().display()));
    }
    let netns = netns_with_resolver(HOST);
    netns.serve_http(8000, "page of the host");
    let sandbox = Sandbox::new(who, Some(&netns));
    let passt = passt_option();
    let mut options = vec!["-p", "2280:80", "--backend", "passt", "--transport", "vhost-user"];
    options.extend(passt.iter().map(String::as_str));
    let script = "\
echo \"PAGE $(fetch 10.0.2.2 8000 /)\"
serve_tcp 80 tcp-answer
echo 'UP .'
read go
exit_qemu 33";
    let args = command_line(&sandbox, &guest, &options, script);
    let mut scene = Scene::start(sandbox.netlaunch(&args));
    assert!(scene.hear("LEASE ").starts_with("ip=10.0.2.15 prefix=24 router=10.0.2.2 "));
    assert_eq!(scene.hear("PAGE "), "page of the host");
    scene.hear("UP ");
    assert_eq!(netns.ask_tcp(2280, AT_MOST), "tcp-answer\n", "{}", scene.said());
    assert_eq!(launch(&sandbox)["transport"], "vhost-user");
    scene.say("go");
    assert_eq!(scene.end().code(), Some(33), "{}", scene.said());
    nothing_left(&sandbox);
}

#[test]
fn a_guest_of_root_works_with_vhost_user() {
    works(As::Root);
}

#[test]
fn a_guest_of_a_user_works_with_vhost_user() {
    works(As::User);
}
