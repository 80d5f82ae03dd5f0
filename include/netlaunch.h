/*
 * netlaunch.h: starts QEMU guests with a user-mode network.
 *
 * netlaunch gives a guest its network through passt, or through slirp (in QEMU) if passt cannot
 * serve. It starts passt and QEMU, starts passt again after a crash, and removes everything at the
 * end. This library does the same for a program: netlaunch_start() takes a request in JSON and
 * returns a launch, netlaunch_wait() waits for QEMU's end.
 *
 *	struct netlaunch_launch *launch = netlaunch_start(
 *		"{\"version\": 1, \"from_env\": true, \"publish\": [\"2222:22\"],"
 *		" \"qemu\": {\"program\": \"qemu-system-x86_64\", \"args\": [\"disk.img\"]}}");
 *	int status;
 *	if (launch == NULL || netlaunch_wait(launch, -1, &status, NULL) != NETLAUNCH_OK)
 *		fprintf(stderr, "%s\n", netlaunch_last_error_message());
 *	netlaunch_free(launch);
 *
 * examples/appliance.c and examples/appliance.py are whole programs.
 *
 * Building
 * --------
 *
 *	cargo rustc --release --lib --no-default-features --features capi \
 *		--crate-type cdylib,staticlib -- -Clink-arg=-Wl,-soname,libnetlaunch.so.0
 *
 * makes target/release/libnetlaunch.so and libnetlaunch.a. Install the first as libnetlaunch.so.0
 * with a link libnetlaunch.so to it, this file, and netlaunch.pc (netlaunch.pc.in with its @WORDS@
 * replaced). A program is then built with
 *
 *	cc program.c $(pkg-config --cflags --libs netlaunch)
 *
 * Rules
 * -----
 *
 * Threads: all functions can be called from any thread, also at the same time with the same launch.
 * Only netlaunch_free() must be the last call with its launch, after all others have returned. The
 * last error belongs to the thread whose call failed.
 *
 * Blocking: a function returns at once unless its comment says that it blocks.
 *
 * Strings: arguments are UTF-8 and end with NUL. The library keeps no pointer to them. A result of
 * type char * belongs to the caller. Free it with netlaunch_string_free(), never with free().
 * A result of type const char * belongs to the library.
 *
 * Errors: a function that can fail returns NULL or NETLAUNCH_ERROR and leaves the reason for
 * netlaunch_last_error(). NULL for an argument, and text that is not UTF-8, are such errors, where
 * a comment does not allow NULL. A defect of the library (a panic in Rust) is an error of kind
 * "internal", after a message on standard error; no exception ever passes through these functions.
 *
 * Processes: a launch has one thread named "netlaunch", which lives as long as the launch and has
 * all signals blocked except those of its own faults (SIGSEGV and the like). QEMU inherits standard
 * input, output and error, the working directory, the signal mask of the thread that calls
 * netlaunch_start(), and each descriptor of this process that is not close-on-exec (FD_CLOEXEC,
 * fcntl(2)): so QEMU's arguments can name a descriptor, and a descriptor that QEMU must not have
 * needs the flag. passt has /dev/null for its input and output. Both end
 * when the launch ends, also when this process is killed: each is the child of a guard process, and
 * the guards are children of this process. wait() and waitpid(-1) of the program can therefore
 * return the process ID of a guard. That does no harm to the launch, nor does SIGCHLD set to
 * SIG_IGN.
 *
 * End of the program: a launch that is not freed ends with the program, also by exit() and
 * _exit(): QEMU and passt are killed. Its launch directory stays, because no code of the library
 * runs then. The next start with the same state_dir removes it. So call netlaunch_free() first.
 *
 * fork(): a launch belongs to the process that started it. In a child after fork(), calls with the
 * launch are errors of kind "forked", and netlaunch_free() has no effect. A child of a program with
 * several threads may call only async-signal-safe functions before exec(), so none of these.
 *
 * Environment: the library uses environment variables only for a request with "from_env": true, and
 * keeps their values of that moment. No other thread may change the environment during
 * netlaunch_plan() and netlaunch_start() with such a request.
 *
 * Requests
 * --------
 *
 * A request is a JSON object (capi-request.schema.json). Its members are named as the keys of
 * netlaunch.conf(5) and the long options of netlaunch(1). "version" is required; an unknown member
 * is an error. An absent member and null leave the choice to netlaunch.
 *
 *	version        1
 *	qemu           {"program": P, "args": [A, ...]}: QEMU, a path or a name in PATH. Without it the
 *	               launch is in serve mode: the caller starts QEMU, see netlaunch_qemu_args().
 *	emulator       the emulator to ask for its features, if qemu's program is a script
 *	passt          the passt program, a path or a name in PATH
 *	backend        "auto" (passt, or slirp if passt cannot serve), "passt" or "slirp"
 *	transport      "unix", "fd" or "vhost-user": the connection between passt and QEMU
 *	id             id= of QEMU's netdev; the first free one of "net0", "net1", ... by default
 *	mac            the address of the guest's card; random by default
 *	device         the model of the guest's card, or "none" if QEMU's arguments have a card
 *	publish        ["[ADDR:]HOSTPORT[-END][:GUESTPORT[-END]][/tcp|udp]", ...]
 *	address        "ADDRESS/LENGTH" of the guest, or "host" for that of the host
 *	gateway        the guest's IPv4 router
 *	dns            the guest's DNS server
 *	search         [DOMAIN, ...]: DNS search domains
 *	hostname       the guest's name in DHCP
 *	mtu            the MTU that the guest learns, 68 to 65520
 *	interface      the host's interface from which passt takes addresses and routes
 *	family         "both", "ipv4" or "ipv6"
 *	host_loopback  whether the guest reaches services on the host's loopback addresses, at the
 *	               address of its gateway; true by default
 *	pcap           a file for the guest's frames
 *	nics           ["KIND[,KEY=VALUE...]", ...]: NICs to add, in the form of the option --net, on
 *	               passt or slirp. The kinds "bridge" and "network" are refused: only the program
 *	               netlaunch makes ports of these. The members from id to gateway, hostname and
 *	               pcap are for a single NIC and cannot go with it.
 *	keep_nics      whether the user-mode networks in QEMU's arguments stay as they are; false by
 *	               default, and then they move to the backend
 *	name           the name of the launch in netlaunch ps
 *	user           the user to run QEMU as; only for root
 *	stop_timeout   the seconds that the guest gets to power down when the launch is stopped; 0 by
 *	               default, and then QEMU ends at once
 *	from_env       whether to take PATH, the directories below and the variables of QEMU and passt
 *	               from the environment; false by default. Without it QEMU and passt have no
 *	               variables but those of "env", and programs are looked up in /usr/bin and /bin.
 *	env            {NAME: VALUE, ...}: more variables for QEMU and passt
 *	state_dir      the directory in which launch directories are made, an absolute path
 *	cache_dir      the directory for the answers of probed programs, an absolute path
 *
 * A path or an argument that is not UTF-8 is {"not-utf-8": [BYTE, ...]} in place of the string;
 * netlaunch_json_text() makes either form.
 *
 * Answers are JSON objects with a member "version", 1 today. It increases when a member is removed
 * or changes its meaning; new members can appear without an increase. Each form has a JSON Schema in
 * conf/schema: plan and ps for the answers that netlaunch prints, too, and capi-event, capi-outcome
 * and capi-error for those of this library alone.
 */
#ifndef NETLAUNCH_H
#define NETLAUNCH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the functions in this file, as in the name libnetlaunch.so.0. */
#define NETLAUNCH_ABI_VERSION 0

/* Results of functions that return int. */
#define NETLAUNCH_ERROR (-1) /* the call failed, see netlaunch_last_error() */
#define NETLAUNCH_TIME_UP 0  /* the time was up */
#define NETLAUNCH_OK 1       /* the call did its work */
#define NETLAUNCH_END 2      /* there are no more events */

/* A launch: passt and QEMU, or passt alone in serve mode. */
struct netlaunch_launch;

/*
 * Returns NETLAUNCH_ABI_VERSION of the library that is loaded. A program that does not link the
 * library by its name, such as one that uses dlopen(), compares it with its own.
 */
uint32_t netlaunch_abi_version(void);

/* Returns the version of netlaunch, such as "0.1.0". The string is static. */
const char *netlaunch_version(void);

/*
 * Returns the error of the last call in this thread that failed, or NULL if none did. A call that
 * succeeds changes nothing here. The string is valid until the next call in this thread that fails,
 * and until the thread ends.
 *
 *	{"version": 1, "kind": KIND, "message": TEXT}   (capi-error.schema.json)
 *
 * KIND is for programs:
 *	invalid-argument  an argument of the function is NULL, not UTF-8, or has no such meaning
 *	invalid-request   the request is not such JSON, contradicts itself, or a value is not valid
 *	qemu-not-found, qemu-unusable, no-backend, port-in-use, port-unusable, name-in-use, launch-dir,
 *	passt, bridge, filter, user, system
 *	                  the launch cannot be planned or started
 *	absent            the launch has no such thing
 *	forked            another process started the launch
 *	internal          a defect of the library
 * New kinds can appear.
 */
const char *netlaunch_last_error(void);

/* Returns the member "message" of netlaunch_last_error(): one line for people. */
const char *netlaunch_last_error_message(void);

/*
 * Returns a path or an argument as JSON, with quotes, for a request. The text is any bytes.
 * Returns NULL on error.
 */
char *netlaunch_json_text(const char *text);

/* Frees a string of this library; NULL is allowed. */
void netlaunch_string_free(char *string);

/* Frees the result of netlaunch_qemu_args(); NULL is allowed. */
void netlaunch_strings_free(char **strings);

/*
 * Makes a plan for the request, as netlaunch --print=json prints it (plan.schema.json), and starts
 * nothing. Blocks while passt and QEMU are asked for their features, some 50 ms, or less if
 * cache_dir has the answers. Returns NULL on error.
 */
char *netlaunch_plan(const char *request);

/*
 * Starts a launch, and blocks until passt serves and QEMU executes. On an error it returns NULL,
 * and nothing is left running. The caller ends the launch with netlaunch_free().
 */
struct netlaunch_launch *netlaunch_start(const char *request);

/*
 * Ends a launch and frees it. If the launch still runs, QEMU and passt are killed, and the call
 * blocks until everything of the launch was removed. NULL is allowed. No other call with this
 * launch may be in progress or follow.
 */
void netlaunch_free(struct netlaunch_launch *launch);

/*
 * Returns the launch at its start as netlaunch ps --json shows it (ps.schema.json), in a list of
 * one: backend, process IDs, addresses, published ports, launch directory. It does not change
 * later; events report changes. Returns NULL on error.
 */
char *netlaunch_launch_json(const struct netlaunch_launch *launch);

/*
 * Returns the plan that was carried out, in the form of netlaunch_plan(). Its members "notes" and
 * "warnings" are for the user. Returns NULL on error.
 */
char *netlaunch_plan_json(const struct netlaunch_launch *launch);

/*
 * Returns the arguments that give QEMU its network, with their exact bytes; NULL follows the last
 * one. In serve mode the caller starts QEMU with them. Returns NULL on error. The caller frees the
 * result with netlaunch_strings_free().
 */
char **netlaunch_qemu_args(const struct netlaunch_launch *launch);

/*
 * Returns a path with its exact bytes: "dir" is the launch directory, "socket" passt's socket,
 * "pid" its pid file, "log" its log. Returns NULL on error; kind "absent" if the launch has no such
 * file, as with slirp.
 */
char *netlaunch_path(const struct netlaunch_launch *launch, const char *name);

/*
 * Returns a descriptor for poll(2) and event loops. It is readable (POLLIN) while
 * netlaunch_next_event() would return at once. It belongs to the launch: the caller must neither
 * read from it nor close it. Returns NETLAUNCH_ERROR on error.
 */
int netlaunch_event_fd(const struct netlaunch_launch *launch);

/*
 * Waits for the next event of the launch and takes it. Blocks for timeout_ms milliseconds at most;
 * a negative number is no limit, 0 does not block. Returns
 *	NETLAUNCH_OK       and in *event the event
 *	NETLAUNCH_TIME_UP  without an event
 *	NETLAUNCH_END      after the last event, which is "ended"
 *	NETLAUNCH_ERROR
 * event can be NULL; otherwise *event is NULL except after NETLAUNCH_OK. The last 64 events are
 * kept for a caller. Events, each with the member "version" (capi-event.schema.json):
 *
 *	{"event": "started", "backend": B, "fallback": REASON or null}
 *	{"event": "daemonized", "pid": PID}   QEMU is this daemon now (-daemonize)
 *	{"event": "passt-ended", "nic": INDEX, "reason": TEXT}
 *	{"event": "passt-restarted", "nic": INDEX, "pid": PID, "attempt": N}
 *	{"event": "backend-lost", "nic": INDEX}   this NIC has no network any more
 *	{"event": "address-learned", "nic": INDEX, "address": ADDRESS or null,
 *	 "addresses6": [ADDRESS, ...]}
 *	{"event": "ended", "outcome": {...}}  with the outcome of netlaunch_wait()
 *
 * New events can appear.
 */
int netlaunch_next_event(const struct netlaunch_launch *launch, int timeout_ms, char **event);

/*
 * Waits until QEMU has ended and everything of the launch was removed; in serve mode, until the
 * caller's QEMU has connected and ended. Blocks for timeout_ms milliseconds at most; a negative
 * number is no limit, 0 does not block. It can be called again, and has the same result then.
 * Returns
 *	NETLAUNCH_OK       after the end
 *	NETLAUNCH_TIME_UP  while the launch runs
 *	NETLAUNCH_ERROR
 * After NETLAUNCH_OK *status is the exit status that netlaunch would have: QEMU's own, 128 + N
 * after signal N, 125 if serve mode lost its backend; and *outcome is (capi-outcome.schema.json)
 *
 *	{"version": 1, "status": STATUS, "qemu": {"exit": STATUS or null, "signal": N or null} or null,
 *	 "signal": N or null, "backend_lost": BOOLEAN, "left": [TEXT, ...]}
 *
 * "signal" is the signal that ended serve mode, "left" has a line for each thing that could not be
 * removed. status and outcome can be NULL. Otherwise *outcome is NULL and *status is not changed
 * after another result.
 */
int netlaunch_wait(const struct netlaunch_launch *launch, int timeout_ms, int *status,
		   char **outcome);

/*
 * Ends the launch: sends SIGTERM to QEMU, and SIGKILL if it still runs 5 s later. With "stop_timeout"
 * it first asks the guest to power down; a second call then ends QEMU. Then it waits as
 * netlaunch_wait() does and returns the same. With timeout_ms 0 it does not block.
 */
int netlaunch_stop(const struct netlaunch_launch *launch, int timeout_ms, int *status,
		   char **outcome);

/*
 * Ends the launch at once: sends SIGKILL to QEMU. Then it waits as netlaunch_wait() does and
 * returns the same.
 */
int netlaunch_kill(const struct netlaunch_launch *launch, int timeout_ms, int *status,
		   char **outcome);

/*
 * Sends the signal of this number (signal(7)) to QEMU; in serve mode it ends the launch. After the
 * end of the launch it has no effect. Returns NETLAUNCH_OK or NETLAUNCH_ERROR.
 */
int netlaunch_signal(const struct netlaunch_launch *launch, int number);

#ifdef __cplusplus
}
#endif

#endif
