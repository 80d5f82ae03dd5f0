/*
 * Boots a guest from a C program; the exit status is QEMU's.
 *
 *	appliance PORTS QEMU [ARGS]...
 *	appliance 2222:22 qemu-system-x86_64 -m 512 disk.img
 *
 * include/netlaunch.h says how to build the library; then
 *	cc -o appliance examples/appliance.c $(pkg-config --cflags --libs netlaunch)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netlaunch.h>

/* Prints the last error and exits with netlaunch's status for errors. */
static void fail(void)
{
	fprintf(stderr, "appliance: %s\n", netlaunch_last_error_message());
	exit(125);
}

/* Appends text to the string *to, which grows; exits if there is no memory. */
static void append(char **to, const char *text)
{
	size_t length = *to ? strlen(*to) : 0;
	char *longer = realloc(*to, length + strlen(text) + 1);

	if (!longer) {
		perror("appliance");
		exit(125);
	}
	*to = strcpy(longer + length, text) - length;
}

/* Appends a text of any bytes as JSON. */
static void append_json(char **to, const char *text)
{
	char *json = netlaunch_json_text(text);

	if (!json)
		fail();
	append(to, json);
	netlaunch_string_free(json);
}

int main(int argc, char **argv)
{
	struct netlaunch_launch *launch;
	char *request = NULL, *json;
	int status = 125;

	if (argc < 3) {
		fprintf(stderr, "usage: appliance PORTS QEMU [ARGS]...\n");
		return 2;
	}
	append(&request, "{\"version\": 1, \"from_env\": true, \"publish\": [");
	append_json(&request, argv[1]);
	append(&request, "], \"qemu\": {\"program\": ");
	append_json(&request, argv[2]);
	append(&request, ", \"args\": [");
	for (int i = 3; i < argc; i++) {
		if (i > 3)
			append(&request, ", ");
		append_json(&request, argv[i]);
	}
	append(&request, "]}}");

	launch = netlaunch_start(request);
	free(request);
	if (!launch)
		fail();
	json = netlaunch_launch_json(launch);
	if (!json)
		fail();
	printf("launch: %s\n", json);
	fflush(stdout);
	netlaunch_string_free(json);

	while (netlaunch_next_event(launch, -1, &json) == NETLAUNCH_OK) {
		printf("event: %s\n", json);
		fflush(stdout);
		netlaunch_string_free(json);
	}
	if (netlaunch_wait(launch, -1, &status, NULL) != NETLAUNCH_OK)
		fail();
	netlaunch_free(launch);
	return status;
}
