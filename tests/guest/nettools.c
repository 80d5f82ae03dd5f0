/* The guest's network commands that busybox has not: one program, three names.
 *
 *   fetch HOST PORT [PATH]   print the body of http://HOST:PORT/PATH
 *   serve_tcp PORT TEXT      answer every connection with TEXT, in the background
 *   serve_udp PORT TEXT      answer every datagram with TEXT, in the background
 *
 * fetch keeps its side open and counts bytes instead of waiting for the end of
 * the stream: Debian 12's passt loses a server's FIN after the guest's own. Who
 * asks serve_tcp from outside should send something first: that passt lets the
 * guest see a published port's connection only with its first bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SILENCE_MS = 15000, LINGER_MS = 2000 };

static uint16_t port_of(const char *word)
{
	char *end;
	long port = strtol(word, &end, 10);

	if (*end || end == word || port < 1 || port > 65535)
		errx(2, "bad port: %s", word);
	return port;
}

/* connect(), but not for longer than SILENCE_MS */
static int connect_to(const char *host, const char *port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port_of(port)) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = v4.sin_port };
	bool is_v6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
	struct timeval limit = { .tv_sec = SILENCE_MS / 1000 };
	int s;

	if (!is_v6 && inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		errx(2, "not an address: %s", host);
	s = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	if (s < 0)
		err(1, "socket");
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (is_v6 ? connect(s, (struct sockaddr *)&v6, sizeof(v6))
		  : connect(s, (struct sockaddr *)&v4, sizeof(v4)))
		err(1, "%s port %s", host, port);
	return s;
}

static int fetch(const char *host, const char *port, const char *path)
{
	static char head[65536];
	size_t have = 0;
	long long left = -1;
	char *body = NULL, *length;
	int status = 0, s = connect_to(host, port);
	struct pollfd p = { .fd = s, .events = POLLIN };

	/* fits any sane PATH; a longer one is cut and answered with 4xx */
	have = snprintf(head, sizeof(head), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host);
	if (write(s, head, have) != (ssize_t)have)
		err(1, "write");

	for (have = 0; left != 0;) {
		ssize_t n;

		if (poll(&p, 1, SILENCE_MS) == 0)
			errx(1, "%s port %s: silence", host, port);
		n = read(s, head + have, sizeof(head) - 1 - have);
		if (n < 0)
			err(1, "read");
		if (n == 0)
			break;
		have += n;
		head[have] = '\0';
		if (!body) {
			body = strstr(head, "\r\n\r\n");
			if (!body && have == sizeof(head) - 1)
				errx(1, "no end of the header");
			if (!body)
				continue;
			*body = '\0';
			body += 4;
			sscanf(head, "HTTP/%*s %d", &status);
			length = strcasestr(head, "\r\nContent-Length:");
			if (length)
				left = atoll(length + strlen("\r\nContent-Length:"));
			have -= body - head;
			memmove(head, body, have);
		}
		if (left >= 0 && (long long)have > left)
			have = left;
		fwrite(head, 1, have, stdout);
		if (left > 0)
			left -= have;
		have = 0;
	}
	if (!body || left > 0)
		errx(1, "%s port %s: the answer is cut off", host, port);
	if (status < 200 || status > 299)
		errx(1, "%s port %s: HTTP status %d", host, port, status);
	return 0;
}

/* one connection: the text, our FIN, then time for the peer to read it: a
 * socket closed with unread data sends a reset, which discards the text */
static void answer(int s, const char *text, size_t len)
{
	struct pollfd p = { .fd = s, .events = POLLIN };
	char drop[4096];

	if (write(s, text, len) == (ssize_t)len && !shutdown(s, SHUT_WR))
		while (poll(&p, 1, LINGER_MS) > 0 && read(s, drop, sizeof(drop)) > 0)
			;
	close(s);
}

static int serve(int type, const char *port, const char *words)
{
	/* :: takes IPv4 too */
	struct sockaddr_in6 peer, here = { .sin6_family = AF_INET6, .sin6_port = htons(port_of(port)) };
	int one = 1, s = socket(AF_INET6, type, 0);
	char *text;
	int len = asprintf(&text, "%s\n", words);

	if (s < 0 || len < 0)
		err(1, "socket");
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&here, sizeof(here)) || (type == SOCK_STREAM && listen(s, 64)))
		err(1, "port %s", port);
	printf("READY %s %s\n", type == SOCK_STREAM ? "tcp" : "udp", port);
	fflush(stdout);
	/* away from the terminal, so that $(...) and the script's end do not wait */
	if (daemon(1, 0))
		err(1, "daemon");
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);

	for (;;) {
		char drop[65536];
		socklen_t size = sizeof(peer);

		if (type == SOCK_STREAM) {
			int c = accept(s, NULL, NULL);

			if (c >= 0 && fork() == 0) {
				answer(c, text, len);
				_exit(0);
			}
			if (c >= 0)
				close(c);
		} else if (recvfrom(s, drop, sizeof(drop), 0, (struct sockaddr *)&peer, &size) >= 0) {
			sendto(s, text, len, 0, (struct sockaddr *)&peer, size);
		}
	}
}

int main(int argc, char **argv)
{
	const char *name = program_invocation_short_name;

	if (!strcmp(name, "fetch") && (argc == 3 || argc == 4))
		return fetch(argv[1], argv[2], argc == 4 ? argv[3] : "/");
	if (!strcmp(name, "serve_tcp") && argc == 3)
		return serve(SOCK_STREAM, argv[1], argv[2]);
	if (!strcmp(name, "serve_udp") && argc == 3)
		return serve(SOCK_DGRAM, argv[1], argv[2]);
	errx(2, "usage: fetch HOST PORT [PATH] | serve_tcp PORT TEXT | serve_udp PORT TEXT");
}
