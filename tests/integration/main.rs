//! All integration tests: one crate, so that the helpers in [`common`] are compiled and linked
//! once.
//!
//! Each module is one subject. tests/run runs each test in a process of its own (cargo nextest);
//! `cargo test --test integration` runs them as threads of one process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and no other crate uses its parts"
)]

mod accepted_networks;
mod adopt;
mod bridge;
mod bridge_guards;
mod bridge_helper;
mod capi;
mod checks_again;
mod cli;
mod common;
mod completions;
mod daemonize;
mod damaged_status;
mod debian_host;
mod dnsmasq;
mod docs;
mod firewall;
mod firewall_check;
mod firewall_packets;
mod firewalld;
mod guest;
mod guest_bandwidth;
mod guest_bridge;
mod guest_dns;
mod guest_ends;
mod guest_fast;
mod guest_filter;
mod guest_learning;
mod guest_library;
mod guest_nics;
mod guest_published;
mod guest_restart;
mod guest_serve;
mod guest_terminal;
mod guest_vhost_user;
mod hostile_input;
mod injection;
mod ipv6_nics;
mod launchers;
mod layers;
mod leaks;
mod learn;
mod library_texts;
mod link;
mod lock_waits;
mod locks;
mod memory;
mod named_launches;
mod netlink_lost;
mod network;
mod network_boot;
mod network_cli;
mod network_corpus;
mod network_event;
mod network_existing;
mod network_faults;
mod network_forwarding;
mod network_killed;
mod network_left;
mod network_options;
mod network_processes;
mod network_reach;
mod network_trust;
mod network_update;
mod network_update_killed;
mod network_who;
mod no_threads;
mod nwfilter_agree;
mod nwfilter_bindings;
mod nwfilter_cli;
mod nwfilter_clock;
mod nwfilter_commit;
mod nwfilter_debian_kernel;
mod nwfilter_defects;
mod nwfilter_dhcp;
mod nwfilter_explain;
mod nwfilter_flood;
mod nwfilter_flood_launches;
mod nwfilter_flood_learning;
mod nwfilter_full_disk;
mod nwfilter_hangup;
mod nwfilter_in_force;
mod nwfilter_killed;
mod nwfilter_learning;
mod nwfilter_learning_belief;
mod nwfilter_link_local;
mod nwfilter_many;
mod nwfilter_off;
mod nwfilter_ports;
mod nwfilter_sent;
mod nwfilter_swap;
mod nwfilter_taken;
mod nwfilter_undo;
mod nwfilter_users;
mod nwfilter_wait;
mod nwfilter_watch;
mod odd_hosts;
mod options_once;
mod other_users;
mod passt_attacks;
mod passt_log;
mod passt_serves;
mod plan;
mod plan_nics;
mod plan_xml;
mod port_rules;
mod port_settings;
mod port_watch;
mod published;
mod purity;
mod qemu_options;
mod serve_sockets;
mod sizes;
mod tools_killed;
mod tools_killed_ports;
mod vlan_debian_kernel;
mod words;
mod wrap;
mod wrap_install;
mod wrap_process;
mod wrap_real;
mod wrap_runs;
