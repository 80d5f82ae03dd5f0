//! Tests that a macvtap port is never open: its guest sends forbidden frames without end, and none
//! of them passes while its filter is bound, changed, reloaded or removed.

use std::time::Instant;

use crate::common::flood::Flood;
use crate::common::flood_scene::{IP, runs, usual};
use crate::common::flood_watch::Watch;
use crate::common::frame::VM;
use crate::common::macvtap::{have_macvtap, plug_above};
use crate::common::{As, Netns, Sandbox, finish, text};

/// A macvtap port above one end of a veth pair, and a watch at the other end.
struct Scene {
    netns: Netns,
    sandbox: Sandbox,
    flood: Flood,
    watch: Watch,
    begun: Instant,
}

impl Scene {
    /// A port without a filter that is down and flooded. Before that each frame was seen to come
    /// out.
    fn new() -> Self {
        let netns = Netns::bare();
        netns.ip("link add peer0 type veth peer name far0");
        netns.ip("link set peer0 up");
        netns.ip("link set far0 up");
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let watch = Watch::start(&netns, &["far0"]);
        let port = plug_above(&netns, "vnet0", "peer0", "bridge", VM.mac);
        netns.ip("link set vnet0 up");
        watch.sees(&usual(VM), &port);
        netns.ip("link set vnet0 down");
        let flood = Flood::start(port, usual(VM));
        Scene { netns, sandbox, flood, watch, begun: Instant::now() }
    }

    fn netlaunch(&self, args: &[&str]) {
        let output = finish(self.sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }

    fn bind(&self) {
        let file = self.sandbox.path("binding.xml");
        let (name, value) = IP;
        let xml = format!(
            "<filterbinding><portdev name='vnet0'/><mac address='52:54:00:11:22:33'/>\
             <filterref filter='clean-traffic'><parameter name='{name}' value='{value}'/>\
             </filterref></filterbinding>"
        );
        std::fs::write(&file, xml).unwrap();
        self.netlaunch(&["nwfilter", "binding-create", &file.to_string_lossy()]);
        self.netns.ip("link set vnet0 up");
    }

    fn report(&self, what: &str, runs: u32) {
        let (taken, not_taken) = self.flood.sent();
        println!(
            "{what}: {runs} runs in {:.1} s; {taken} frames sent, {not_taken} more to a port that \
             was gone; seen: {} allowed, 0 forbidden",
            self.begun.elapsed().as_secs_f32(),
            self.watch.allowed()
        );
    }
}

#[test]
fn no_forbidden_frame_passes_a_bind_or_teardown_of_a_macvtap() {
    let what = "no_forbidden_frame_passes_a_bind_or_teardown_of_a_macvtap";
    if !have_macvtap(what) {
        return;
    }
    let scene = Scene::new();
    for run in 1..=runs() {
        scene.flood.run(run);
        scene.bind();
        scene.watch.passes(run);
        scene.netns.ip("link set vnet0 down");
        scene.netlaunch(&["nwfilter", "binding-delete", "vnet0"]);
        scene.netns.ip("link delete vnet0");
        scene.flood.port(plug_above(&scene.netns, "vnet0", "peer0", "bridge", VM.mac));
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(what, runs());
}

#[test]
fn no_forbidden_frame_passes_a_change_of_a_macvtaps_filter() {
    let what = "no_forbidden_frame_passes_a_change_of_a_macvtaps_filter";
    if !have_macvtap(what) {
        return;
    }
    // Two definitions that refuse the same: in the first stage, and in the second.
    let definitions = [
        include_str!("../../conf/filters/no-ip-spoofing.xml"),
        "<filter name='no-ip-spoofing' chain='ipv4-ip' priority='-710'>
         <rule action='drop' direction='out' priority='500'><all match='no' srcipaddr='$IP'/></rule>
         </filter>",
    ];
    let scene = Scene::new();
    scene.bind();
    scene.watch.passes(0);
    let file = scene.sandbox.path("filter.xml");
    for run in 1..=runs() {
        scene.flood.run(run);
        std::fs::write(&file, definitions[run as usize % 2]).unwrap();
        scene.netlaunch(&["nwfilter", "define", &file.to_string_lossy()]);
        scene.watch.passes(run);
        scene.netlaunch(&["firewall", "reload"]);
        scene.watch.passes(run);
        scene.watch.holds(&format!("{what}, run {run}"));
    }
    scene.report(what, runs());
}
