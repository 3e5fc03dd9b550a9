/* Loads a server of protocol v0 with WebSocket clients, and says what that cost the server.

       load [OPTION...] route      PORT PAIRS WINDOW SECONDS PID...
       load [OPTION...] pace       PORT PAIRS RATE SECONDS PID...      RATE messages a second, and how long each takes
       load [OPTION...] handshakes PORT AT_ONCE SECONDS PID...
       load [OPTION...] storm      PORT CONNECTIONS PID...             all clients at once
       load [OPTION...] idle       PORT CONNECTIONS PID...
       load [OPTION...] group      PORT MEMBERS SECONDS PID...         one more client sends to all members

   PIDs are those of the server's processes. One line of JSON is the result. Every message is compared with what should
   arrive, at whom and when; the first that is wrong ends the program with status 1 and {"fault": "..."}.

       --tls                  all clients speak TLS, with a full handshake each
       --no-more-than-tls     in a storm: clients that have made the TLS handshake want nothing more
       --recipients-at PORT   where the receiving clients of all pairs connect
       --subscribe-by-path    a client names its own address and that of its peer in the path of its request, as nchan
                              wants it. There is no welcome then, nothing to register, and senders get
                              acknowledgements, which count for nothing

   and of those in a group, or in pairs, whose protocol may be any:

       --path PATH, --subprotocol NAME   of their requests
       --say TEXT                        each of these when the server has said something; the last is to be answered
       --before TEXT, --between TEXT, --behind TEXT
                                         what is around a message of MESSAGE_LENGTH. Of a group it is what a sender says,
                                         and a text that comes to a member must have just this message in it. In a pair
                                         the address of the recipient is before `between`, both ways */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define OPENING_AT_ONCE 20     /* fits into any server's backlog */
#define MAX_WINDOW 32          /* that many messages, and a response with headers, fit into a client's buffer */
#define BUFFER_LENGTH 8192
#define WARM_UP_SECONDS 0.4
#define LAP 64                 /* messages; no pair is more than two laps ahead of another */
#define SETTLING_SECONDS 0.5
#define PATIENCE_SECONDS 10.0  /* after so long without a sign of life a server counts as stuck */
#define LOST_AFTER_SECONDS 3.0
#define MAX_SAYS 4
#define SOURCE_ADDRESSES 200   /* 127.0.0.1 and following: closed connections keep their ports for a minute */

#define UUID_LENGTH 36
#define MESSAGE_LENGTH 64
#define SEQUENCE_LENGTH 10
#define MAX_TEXT_LENGTH 160
#define MAX_FRAME_LENGTH (MAX_TEXT_LENGTH + 8)

enum opcode { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum state { CONNECTING, ENCRYPTING, UPGRADING, WELCOMING, REGISTERING, READY, CLOSING };
enum scenario { ROUTE, PACE, HANDSHAKES, STORM, IDLE, GROUP };

struct client {
    int fd;
    SSL *tls; /* NULL when nothing is encrypted */
    int said; /* so many of `says` */
    int number; /* unique; its UUID follows from it */
    enum state state;
    size_t received;
    unsigned char buffer[BUFFER_LENGTH];
};

/* Clients 2n and 2n + 1: the former sends, the latter receives. */
struct pair {
    long sent, arrived;
    char text[MAX_TEXT_LENGTH + 1];     /* of the next message to be sent */
    char expected[MAX_TEXT_LENGTH + 1]; /* of the next message to arrive */
};

static enum scenario scenario;
static bool subscribe_by_path, no_more_than_tls;
static SSL_CTX *encryption; /* NULL: without TLS */
static const char *given_path, *subprotocol, *says[MAX_SAYS], *before_message, *between, *behind_message;
static int say_count;
static size_t recipient_at, sequence_at, text_length; /* in the text of a pair */
static int port, recipients_port, epoll;
static int *pids, pid_count;

static struct client *clients;
static int *order; /* in which they connect */
static int client_count, opened, ready;
static struct pair *pairs;
static int window;
static bool sending;
static long lap_end = LAP;
static int behind; /* pairs that have yet to reach the end of the lap */
static long done; /* messages that arrived, or handshakes that were completed to the close */
static long lost;  /* in a storm: clients that were refused, or closed before they were ready */
static double *due, *trips; /* at a pace: when each message was to be sent, and how long it took */

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("{\"fault\": \"");
    vprintf(format, arguments);
    printf("\"}\n");
    va_end(arguments);
    exit(1);
}

/* Time */

static double seconds_of(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0)
        fail("a process of the server is gone");
    return time.tv_sec + time.tv_nsec / 1e9;
}

static double now(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

/* Of each process of the server, to the nanosecond and with all threads, also those that have ended; /proc/PID/stat
   counts in steps of 10 ms. */
static void read_clocks(double *server)
{
    for (int i = 0; i < pid_count; i++) {
        clockid_t clock;
        if (clock_getcpuclockid(pids[i], &clock) != 0)
            fail("process %d of the server is gone", pids[i]);
        server[i] = seconds_of(clock);
    }
}

static long resident_kib(void)
{
    long sum = 0;
    for (int i = 0; i < pid_count; i++) {
        char path[64];
        long pages = 0;
        snprintf(path, sizeof path, "/proc/%d/statm", pids[i]);
        FILE *file = fopen(path, "r");
        if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
            fail("process %d of the server is gone", pids[i]);
        fclose(file);
        sum += pages * (sysconf(_SC_PAGESIZE) / 1024);
    }
    return sum;
}

/* Texts */

static void write_sequence(char *text, long sequence)
{
    for (int digit = SEQUENCE_LENGTH - 1; digit >= 0; digit--, sequence /= 10)
        text[sequence_at + digit] = '0' + sequence % 10;
}

/* Its last digits are the number of the client. The first ones are those of this run: clients of the last one may not
   quite be gone yet. */
static void write_uuid(char *uuid, int number)
{
    snprintf(uuid, UUID_LENGTH + 1, "%08x-0000-4000-8000-%012d", getpid(), number);
}

/* The text of a message: its sequence number, its sender, and dots up to MESSAGE_LENGTH. */
static void write_text(char *text, int recipient, int sender, long sequence)
{
    char uuid[UUID_LENGTH + 1], message[MESSAGE_LENGTH + 1];
    write_uuid(uuid, recipient);
    memset(message, '.', MESSAGE_LENGTH);
    message[MESSAGE_LENGTH] = 0;
    message[snprintf(message, MESSAGE_LENGTH, "%010ld of client %d", 0L, sender)] = ' ';
    snprintf(text, MAX_TEXT_LENGTH + 1, "%s%s%s%s%s", before_message, uuid, between, message, behind_message);
    write_sequence(text, sequence);
}

/* Frames: RFC 6455, section 5.2 */

static size_t write_frame(unsigned char *frame, enum opcode opcode, const char *payload, size_t length)
{
    static const unsigned char mask[4] = {0x9d, 0x3c, 0x5a, 0xe1};
    size_t head = 0;
    frame[head++] = 0x80 | opcode;
    if (length < 126) {
        frame[head++] = 0x80 | length;
    } else {
        frame[head++] = 0x80 | 126;
        frame[head++] = length >> 8;
        frame[head++] = length & 0xff;
    }
    memcpy(frame + head, mask, 4);
    head += 4;
    for (size_t i = 0; i < length; i++)
        frame[head + i] = payload[i] ^ mask[i % 4];
    return head + length;
}

/* The length of the whole frame, or 0 while it is not complete. */
static size_t read_frame(const unsigned char *frame, size_t available, const char **payload, size_t *length)
{
    size_t head = 2;
    if (available < head)
        return 0;
    *length = frame[1];
    if (*length == 126) {
        head = 4;
        if (available < head)
            return 0;
        *length = frame[2] << 8 | frame[3];
    }
    if (!(frame[0] & 0x80) || *length > BUFFER_LENGTH - head || (head == 2 && *length > 125))
        fail("the server sent a frame that is masked, fragmented or too long");
    *payload = (const char *)frame + head;
    return available < head + *length ? 0 : head + *length;
}

static void send_all(struct client *client, const void *data, size_t length)
{
    /* No more than a window is ever on its way, and that fits into any socket's buffers. */
    ssize_t sent = client->tls ? SSL_write(client->tls, data, length) : send(client->fd, data, length, MSG_NOSIGNAL);
    if (sent != (ssize_t)length)
        fail("client %d cannot send: the server has closed the connection or does not read", client->number);
}

/* Opening and closing connections */

static void wait_for(struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(epoll, operation, client->fd, &event) != 0)
        fail("epoll: %s", strerror(errno));
}

static void ask_for_upgrade(struct client *client)
{
    /* The nonce is that of RFC 6455, section 1.3, where its answer can be read too: no SHA-1 is needed here. */
    char request[512], path[128] = "/";
    if (subscribe_by_path) {
        char own[UUID_LENGTH + 1], peer[UUID_LENGTH + 1];
        write_uuid(own, client->number);
        write_uuid(peer, client->number ^ 1);
        snprintf(path, sizeof path, "/?subscriber=%s&publisher=%s", own, peer);
    }
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s%s%s"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          given_path ? given_path : path, subprotocol ? "Sec-WebSocket-Protocol: " : "",
                          subprotocol ? subprotocol : "", subprotocol ? "\r\n" : "");
    client->state = UPGRADING;
    send_all(client, request, length);
}

static void become_ready(struct client *client);
static bool may_be_lost(struct client *client);

/* The next step of the TLS handshake. */
static void encrypt(struct client *client)
{
    int result = SSL_connect(client->tls), error = SSL_get_error(client->tls, result);
    if (result == 1 && no_more_than_tls)
        become_ready(client);
    else if (result == 1)
        ask_for_upgrade(client);
    else if (error != SSL_ERROR_WANT_READ && !may_be_lost(client))
        fail("client %d has no TLS: %s", client->number, ERR_error_string(ERR_get_error(), NULL));
}

static void connected(struct client *client)
{
    if (encryption == NULL) {
        ask_for_upgrade(client);
        return;
    }
    client->state = ENCRYPTING;
    client->tls = SSL_new(encryption);
    if (client->tls == NULL || SSL_set_fd(client->tls, client->fd) != 1)
        fail("out of memory");
    encrypt(client);
}

static void open_client(struct client *client)
{
    client->state = CONNECTING;
    client->received = 0;
    client->said = 0;
    client->fd = socket(AF_INET, SOCK_STREAM | (scenario == STORM ? SOCK_NONBLOCK : 0), 0);
    if (client->fd < 0)
        fail("a socket cannot be opened: %s", strerror(errno));

    int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET}, server = source;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + client->number % SOURCE_ADDRESSES);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons(client->number % 2 ? recipients_port : port);
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(client->fd, (struct sockaddr *)&source, sizeof source) != 0
        || (connect(client->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS))
        fail("client %d cannot connect: %s", client->number, strerror(errno));
    if (scenario == STORM) {
        wait_for(client, EPOLL_CTL_ADD, EPOLLOUT);
        return;
    }
    if (encryption != NULL && fcntl(client->fd, F_SETFL, O_NONBLOCK) != 0)
        fail("fcntl: %s", strerror(errno));
    wait_for(client, EPOLL_CTL_ADD, EPOLLIN);
    connected(client);
}

static void drop_client(struct client *client)
{
    SSL_free(client->tls);
    client->tls = NULL;
    close(client->fd);
}

/* Whether it is no failure that this connection has ended: a storm goes on without it, and who wants no more than TLS
   has it already. */
static bool may_be_lost(struct client *client)
{
    if (scenario != STORM || (client->state == READY && !no_more_than_tls))
        return false;
    lost += client->state != READY;
    drop_client(client);
    return true;
}

static void close_client(struct client *client)
{
    drop_client(client);
    done++;
    client->number += client_count;
    open_client(client);
}

static void open_next(void)
{
    open_client(&clients[order[opened++]]);
}

static void become_ready(struct client *client)
{
    client->state = READY;
    ready++;
    if (opened < client_count && opened - ready < OPENING_AT_ONCE)
        open_next();
}

static size_t write_close(unsigned char *frame)
{
    return write_frame(frame, CLOSE, "\x03\xe8", 2); /* 1000 */
}

/* The response is complete. What follows next depends on the scenario, and on who the server is. */
static void upgraded(struct client *client)
{
    if (scenario == GROUP ? say_count > 0 : !subscribe_by_path) {
        client->state = WELCOMING;
    } else if (scenario == HANDSHAKES) {
        unsigned char frame[16];
        client->state = CLOSING;
        send_all(client, frame, write_close(frame));
    } else {
        become_ready(client);
    }
}

static void send_text(struct client *client, const char *text)
{
    unsigned char frame[BUFFER_LENGTH];
    send_all(client, frame, write_frame(frame, TEXT, text, strlen(text)));
}

/* What a client has to say before it is in the group. */
static void say_next(struct client *client)
{
    if (client->said == say_count)
        become_ready(client);
    else
        send_text(client, says[client->said++]);
}

/* Registering has no answer: a message to oneself shows that it has taken effect. */
static void welcomed(struct client *client)
{
    if (scenario == GROUP) {
        say_next(client);
        return;
    }
    if (client->said < say_count) {
        send_text(client, says[client->said++]);
        return;
    }
    unsigned char frames[2 * MAX_FRAME_LENGTH];
    char text[MAX_TEXT_LENGTH + 1], uuid[UUID_LENGTH + 1];
    write_uuid(uuid, client->number);
    size_t length = snprintf(text, sizeof text, "%s%s%sconnected%s", before_message, uuid, between, behind_message);
    length = write_frame(frames, TEXT, text, length);
    if (scenario == HANDSHAKES) {
        client->state = CLOSING;
        length += write_close(frames + length);
    } else {
        client->state = REGISTERING;
        write_text(text, client->number, client->number, 0);
        length += write_frame(frames + length, TEXT, text, text_length);
    }
    send_all(client, frames, length);
}

/* Messages */

static void fill_window(struct pair *pair)
{
    unsigned char frames[MAX_WINDOW * MAX_FRAME_LENGTH];
    size_t length = 0;
    for (; pair->sent - pair->arrived < window && pair->sent < lap_end + LAP; pair->sent++) {
        write_sequence(pair->text, pair->sent);
        length += write_frame(frames + length, TEXT, pair->text, text_length);
    }
    if (length > 0)
        send_all(&clients[2 * (pair - pairs)], frames, length);
}

/* Were pairs free to run, those within one worker would be served again and again before others get a turn, and hardly a
   message would go from worker to worker. */
static void next_lap(void)
{
    lap_end += LAP;
    for (int i = 0; i < client_count / 2; i++) {
        behind += pairs[i].arrived < lap_end;
        fill_window(&pairs[i]);
    }
}

/* Messages at a pace, and messages to a group: */

static void send_one(struct pair *pair)
{
    unsigned char frame[MAX_FRAME_LENGTH];
    write_sequence(pair->text, pair->sent++);
    send_all(&clients[2 * (pair - pairs)], frame, write_frame(frame, TEXT, pair->text, text_length));
}

static long group_sent;
static char group_message[MESSAGE_LENGTH + 1];

static void send_to_group(void)
{
    char text[512];
    snprintf(group_message, sizeof group_message, "%010ld to all %*s", group_sent++, MESSAGE_LENGTH - 18, ".");
    snprintf(text, sizeof text, "%s%s%s", before_message, group_message, behind_message);
    send_text(&clients[client_count - 1], text);
}

/* Each member hears each message once: the next one is not sent before all have it. */
static void group_heard(struct client *client, const char *text, size_t length)
{
    bool is_ours = memmem(text, length, group_message, MESSAGE_LENGTH) != NULL;
    if (client == &clients[client_count - 1]) /* who sends may hear of it, or not */
        return;
    if (!is_ours || client->said == say_count + (int)group_sent)
        fail("client %d of the group got %zu bytes that are not the message of now, or got it twice", client->number, length);
    client->said = say_count + group_sent;
    done++;
    if (done % (client_count - 1) == 0 && sending)
        send_to_group();
}

/* Says what is wrong with a text that was not expected. */
static void fail_with(const struct client *client, const char *expected, const char *text, size_t length)
{
    if (length != text_length)
        fail("changed: client %d got %zu bytes instead of %zu", client->number, length, text_length);
    if (memcmp(text + recipient_at, expected + recipient_at, UUID_LENGTH) != 0)
        fail("misrouted: client %d got a message for another", client->number);
    if (memcmp(text, expected, sequence_at) != 0
        || memcmp(text + sequence_at + SEQUENCE_LENGTH, expected + sequence_at + SEQUENCE_LENGTH,
                  text_length - sequence_at - SEQUENCE_LENGTH) != 0)
        fail("changed: client %d got a message that was not sent", client->number);
    fail("lost or out of order: client %d got message %ld instead of %ld", client->number,
         atol(text + sequence_at), atol(expected + sequence_at));
}

static void message_arrived(struct client *client, const char *text, size_t length)
{
    static const char acknowledgement[] = "queued messages:"; /* of nchan */
    if (subscribe_by_path && length > sizeof acknowledgement && memcmp(text, acknowledgement, sizeof acknowledgement - 1) == 0)
        return;
    if ((scenario != ROUTE && scenario != PACE) || client->number % 2 == 0)
        fail("misrouted: client %d got a message, and nobody writes to it", client->number);
    struct pair *pair = &pairs[client->number / 2];
    write_sequence(pair->expected, pair->arrived);
    if (length != text_length || memcmp(text, pair->expected, text_length) != 0)
        fail_with(client, pair->expected, text, length);
    if (pair->arrived == pair->sent)
        fail("client %d got a message twice, or before it was sent", client->number);
    if (scenario == PACE) {
        long number = pair->arrived * (client_count / 2) + (pair - pairs);
        trips[number] = now() - due[number];
    }
    pair->arrived++;
    behind -= pair->arrived == lap_end;
    done++;
}

static void text_arrived(struct client *client, const char *text, size_t length)
{
    char own[MAX_TEXT_LENGTH + 1];
    switch (client->state) {
    case WELCOMING:
        welcomed(client);
        break;
    case REGISTERING:
        write_text(own, client->number, client->number, 0);
        if (length != text_length || memcmp(text, own, text_length) != 0)
            fail_with(client, own, text, length);
        become_ready(client);
        break;
    case READY:
        if (scenario == GROUP)
            group_heard(client, text, length);
        else
            message_arrived(client, text, length);
        break;
    default:
        fail("client %d got a text after it had said that it closes", client->number);
    }
}

/* Whether the connection is still the one that the frame came on. */
static bool frame_arrived(struct client *client, enum opcode opcode, const char *payload, size_t length)
{
    unsigned char pong[140];
    switch (opcode) {
    case TEXT:
        text_arrived(client, payload, length);
        return true;
    case PING:
        send_all(client, pong, write_frame(pong, PONG, payload, length));
        return true;
    case CLOSE:
        if (client->state != CLOSING)
            fail("the server closed the connection of client %d with %d", client->number,
                 length < 2 ? 1005 : (unsigned char)payload[0] << 8 | (unsigned char)payload[1]);
        close_client(client);
        return false;
    default:
        fail("client %d got a frame with opcode %d", client->number, opcode);
        return false;
    }
}

/* The length of a complete response; 0 while it is not complete. */
static size_t read_response(struct client *client)
{
    unsigned char *end = memmem(client->buffer, client->received, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    *end = 0;
    if (strncmp((char *)client->buffer, "HTTP/1.1 101 ", 13) != 0)
        return may_be_lost(client) ? 0 : (fail("the server refused a handshake: %.12s", client->buffer), 0);
    if (strstr((char *)client->buffer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == NULL)
        fail("the server answered a handshake with a wrong Sec-WebSocket-Accept");
    return end + 4 - client->buffer;
}

/* What has come so far; false when the connection has ended. */
static bool receive(struct client *client)
{
    unsigned char *free_part = client->buffer + client->received;
    ssize_t count;
    if (client->tls == NULL) {
        count = recv(client->fd, free_part, BUFFER_LENGTH - client->received, 0);
    } else {
        count = SSL_read(client->tls, free_part, BUFFER_LENGTH - client->received);
        if (count <= 0 && SSL_get_error(client->tls, count) == SSL_ERROR_WANT_READ)
            return true; /* a session ticket, or half a record */
    }
    client->received += count > 0 ? count : 0;
    return count > 0;
}

/* Acts on all that is complete; whether the connection is still the same. */
static bool act(struct client *client)
{
    size_t at = 0;
    if (client->state == UPGRADING) {
        long was_lost = lost;
        at = read_response(client);
        if (at == 0)
            return lost == was_lost;
        upgraded(client);
    }
    const char *payload;
    size_t length, frame;
    while ((frame = read_frame(client->buffer + at, client->received - at, &payload, &length)) > 0) {
        enum opcode opcode = client->buffer[at] & 0x0f;
        if (!frame_arrived(client, opcode, payload, length))
            return false;
        at += frame;
    }
    client->received -= at;
    memmove(client->buffer, client->buffer + at, client->received);
    return true;
}

static void read_client(struct client *client)
{
    if (client->state == CONNECTING) {
        int error;
        socklen_t size = sizeof error;
        if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
            if (!may_be_lost(client))
                fail("client %d cannot connect: %s", client->number, strerror(error));
            return;
        }
        wait_for(client, EPOLL_CTL_MOD, EPOLLIN);
        connected(client);
        return;
    }
    if (client->state == ENCRYPTING) {
        encrypt(client);
        return;
    }
    do {
        if (!receive(client)) {
            if (!may_be_lost(client))
                fail("the server dropped the connection of client %d", client->number);
            return;
        }
        if (!act(client))
            return;
    } while (client->tls != NULL && SSL_pending(client->tls) > 0);
    if (scenario != ROUTE)
        return;
    /* All that was read together is answered together. */
    if (sending && client->number % 2 == 1)
        fill_window(&pairs[client->number / 2]);
    if (sending && behind == 0)
        next_lap();
}

/* Scenarios */

static void read_within(int milliseconds)
{
    struct epoll_event events[256];
    int count = epoll_wait(epoll, events, 256, milliseconds);
    for (int i = 0; i < count; i++)
        read_client(events[i].data.ptr);
}

static void read_for(double seconds)
{
    read_within((int)(seconds * 1000) + 1);
}

/* What is there already. */
static void read_ready(void)
{
    read_within(0);
}

static void read_until(double end)
{
    double active = now();
    for (double time = active; time < end; time = now()) {
        long before = done;
        read_for(end - time < 0.1 ? end - time : 0.1);
        if (done != before)
            active = time;
        if (time - active > PATIENCE_SECONDS)
            fail("lost: nothing has arrived for %.0f seconds", PATIENCE_SECONDS);
    }
}

/* Open clients until `count` of them are ready. */
static void open_clients(int count)
{
    client_count = count;
    while (opened < count && opened - ready < OPENING_AT_ONCE)
        open_next();
    double active = now();
    while (ready < count) {
        int before = ready;
        read_for(0.1);
        if (ready != before)
            active = now();
        if (now() - active > PATIENCE_SECONDS)
            fail("lost: %d of %d clients have had no answer for %.0f seconds", opened - ready, opened, PATIENCE_SECONDS);
    }
}

/* The clocks when a measurement began. */
static double began, own_then, *server_then;

static void begin(void)
{
    read_clocks(server_then);
    own_then = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    began = now();
}

/* What was done since then, and what it has cost: the beginning of a JSON object. */
static void note_cost(FILE *result, long counted)
{
    double lasted = now() - began, own = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - own_then, server[pid_count];
    read_clocks(server);
    fprintf(result, "{\"done\": %ld, \"seconds\": %.6f, \"load_seconds\": %.6f, \"process_seconds\": [", counted, lasted, own);
    for (int i = 0; i < pid_count; i++)
        fprintf(result, "%s%.6f", i ? ", " : "", server[i] - server_then[i]);
    fprintf(result, "]");
}

/* What happens within some seconds, after a while of warming up. */
static long measure(FILE *result, double seconds)
{
    read_until(now() + WARM_UP_SECONDS);
    begin();
    long before = done;
    read_until(began + seconds);
    /* On a busy machine, a server may not even have had its turn. */
    while (done == before && now() - began < seconds + PATIENCE_SECONDS)
        read_for(0.1);
    long counted = done - before;
    note_cost(result, counted);
    sending = false;
    return counted;
}

static void fail_without(long counted)
{
    if (counted == 0)
        fail("lost: nothing has arrived");
}

/* All that has been sent arrives, however slow the server is. */
static void wait_for_the_rest(void)
{
    long missing = 0, before = done;
    for (double end = now() + LOST_AFTER_SECONDS; now() < end; read_for(0.01)) {
        if (done != before)
            end = now() + LOST_AFTER_SECONDS;
        before = done;
        missing = 0;
        for (int i = 0; i < client_count / 2; i++)
            missing += pairs[i].sent - pairs[i].arrived;
        if (missing == 0)
            break;
    }
    if (missing > 0)
        fail("lost: %ld messages", missing);
}

/* Workers of one server often take neighbours in turn, or several together. Were pairs neighbours, too few of them, or
   too many, would have one client in each worker. It is the same mix every time. */
static void mix(int *numbers, int count)
{
    for (int i = count - 1; i > 0; i--) {
        int other = random() % (i + 1), number = numbers[i];
        numbers[i] = numbers[other];
        numbers[other] = number;
    }
}

static void open_pairs(int pair_count)
{
    mix(order, 2 * pair_count);
    open_clients(2 * pair_count);
    if (recipients_port != port)
        usleep(500000); /* until each service knows who is at the other */
    for (int i = 0; i < pair_count; i++) {
        write_text(pairs[i].text, 2 * i + 1, 2 * i, 0);
        write_text(pairs[i].expected, 2 * i + 1, 2 * i, 0);
    }
}

static void route(FILE *result, int pair_count, double seconds)
{
    open_pairs(pair_count);
    sending = true;
    behind = pair_count;
    for (int i = 0; i < pair_count; i++)
        fill_window(&pairs[i]);
    long counted = measure(result, seconds);
    wait_for_the_rest();
    fail_without(counted);
}

static int by_length(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return difference < 0 ? -1 : difference > 0;
}

/* Each message is sent when it is due, however late the ones before are; what is late counts from when it was due. */
static void pace(FILE *result, int pair_count, int rate, double seconds)
{
    long warm = rate * WARM_UP_SECONDS, count = warm + rate * seconds;
    due = calloc(count + pair_count, sizeof *due);
    trips = calloc(count + pair_count, sizeof *trips);
    if (due == NULL || trips == NULL)
        fail("out of memory");
    open_pairs(pair_count);
    double start = now();
    for (long number = 0; number < count;) {
        if (number == warm && began == 0)
            begin();
        if (start + (double)number / rate <= now()) {
            due[number] = start + (double)number / rate;
            send_one(&pairs[number++ % pair_count]);
        } else {
            read_ready();
        }
    }
    wait_for_the_rest();
    note_cost(result, count - warm);
    qsort(trips + warm, count - warm, sizeof *trips, by_length);
    fprintf(result, ", \"p50\": %.6f, \"p99\": %.6f", trips[warm + (count - warm) / 2], trips[warm + (count - warm) * 99 / 100]);
}

static void handshakes(FILE *result, int at_once, double seconds)
{
    client_count = at_once;
    while (opened < at_once)
        open_next();
    fail_without(measure(result, seconds));
}

/* All come at once, and none comes again that was turned away. */
static void storm(FILE *result, int count)
{
    begin();
    client_count = count;
    while (opened < count) {
        open_next();
        if (opened % OPENING_AT_ONCE == 0)
            read_ready();
    }
    double active = now();
    while (ready + lost < count) {
        long before = ready + lost;
        read_for(0.1);
        if (ready + lost != before)
            active = now();
        if (now() - active > PATIENCE_SECONDS)
            break;
    }
    note_cost(result, ready);
    fprintf(result, ", \"lost\": %d", count - ready);
}

/* The first tenth warms the server up, and is not counted. */
static void idle(FILE *result, int connections)
{
    int warm = connections / 10;
    open_clients(warm);
    read_for(SETTLING_SECONDS);
    long before = resident_kib();
    open_clients(connections);
    read_for(SETTLING_SECONDS);
    fprintf(result, "{\"connections\": %d, \"resident_kib\": %ld", connections - warm, resident_kib() - before);
}

static void group(FILE *result, int members, double seconds)
{
    open_clients(members + 1);
    usleep(500000); /* what a server says late about who is there */
    read_ready();
    sending = true;
    send_to_group();
    long counted = measure(result, seconds);
    for (double end = now() + LOST_AFTER_SECONDS; done % members != 0 && now() < end;)
        read_for(0.01);
    if (done % members != 0)
        fail("lost: %ld members have not got the last message", members - done % members);
    fail_without(counted);
}

static long whole_number(const char *word, long least, long most)
{
    char *end;
    long number = strtol(word, &end, 10);
    if (*word == 0 || *end != 0 || number < least || number > most)
        fail("%s is no whole number from %ld to %ld", word, least, most);
    return number;
}

/* Any certificate will do: what is measured is what it costs. */
static void encrypt_all(void)
{
    encryption = SSL_CTX_new(TLS_client_method());
    if (encryption == NULL)
        fail("there is no TLS");
    SSL_CTX_set_verify(encryption, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(encryption, SSL_SESS_CACHE_OFF);
}

/* The number of words that were options. */
static int read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"tls", no_argument, NULL, 't'},
        {"no-more-than-tls", no_argument, NULL, 'n'},
        {"subscribe-by-path", no_argument, NULL, 's'},
        {"recipients-at", required_argument, NULL, 'r'},
        {"path", required_argument, NULL, 'p'},
        {"subprotocol", required_argument, NULL, 'q'},
        {"say", required_argument, NULL, 'y'},
        {"before", required_argument, NULL, 'b'},
        {"between", required_argument, NULL, 'w'},
        {"behind", required_argument, NULL, 'e'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
        switch (option) {
        case 't': encrypt_all(); break;
        case 'n': encrypt_all(); no_more_than_tls = true; break;
        case 's': subscribe_by_path = true; break;
        case 'r': recipients_port = whole_number(optarg, 1, 65535); break;
        case 'p': given_path = optarg; break;
        case 'q': subprotocol = optarg; break;
        case 'b': before_message = optarg; break;
        case 'w': between = optarg; break;
        case 'e': behind_message = optarg; break;
        case 'y':
            if (say_count == MAX_SAYS)
                fail("at most %d times --say", MAX_SAYS);
            says[say_count++] = optarg;
            break;
        default: fail("usage: the first lines of bench/load.c");
        }
    }
    return optind;
}

/* What is around a message: where nothing else is said, nothing in a group, and protocol v0 in a pair. */
static void measure_texts(void)
{
    bool bare = scenario == GROUP;
    before_message = before_message ? before_message : bare ? "" : "{\"recipient_uuid\": \"";
    between = between ? between : "\", \"message\": \"";
    behind_message = behind_message ? behind_message : bare ? "" : "\"}";
    recipient_at = strlen(before_message);
    sequence_at = recipient_at + UUID_LENGTH + strlen(between);
    text_length = sequence_at + MESSAGE_LENGTH + strlen(behind_message);
    if (text_length > MAX_TEXT_LENGTH)
        fail("a text is longer than %d", MAX_TEXT_LENGTH);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int numbers; /* behind its name, before the PIDs */
    } scenarios[] = {
        [ROUTE] = {"route", 4}, [PACE] = {"pace", 4}, [HANDSHAKES] = {"handshakes", 3},
        [STORM] = {"storm", 2}, [IDLE] = {"idle", 2}, [GROUP] = {"group", 3},
    };
    opterr = 0;
    int options = read_options(argc, argv);
    char **words = argv + options;
    int word_count = argc - options, last = sizeof scenarios / sizeof *scenarios - 1;
    for (scenario = 0; word_count > 0 && (int)scenario < last && strcmp(words[0], scenarios[scenario].name) != 0;)
        scenario++;
    int numbers = scenarios[scenario].numbers;
    if (word_count <= numbers + 1 || strcmp(words[0], scenarios[scenario].name) != 0)
        fail("usage: the first lines of bench/load.c");

    measure_texts();
    port = whole_number(words[1], 1, 65535);
    if (recipients_port == 0)
        recipients_port = port;
    int count = whole_number(words[2], 1, 1000000);
    int capacity = scenario == ROUTE || scenario == PACE ? 2 * count : count + 1;
    double seconds = numbers > 2 ? atof(words[numbers]) : 0;
    pid_count = word_count - numbers - 1;
    pids = calloc(pid_count, sizeof *pids);
    server_then = calloc(pid_count, sizeof *server_then);
    clients = calloc(capacity, sizeof *clients);
    order = calloc(capacity, sizeof *order);
    pairs = calloc(count, sizeof *pairs);
    epoll = epoll_create1(0);
    if (pids == NULL || server_then == NULL || clients == NULL || order == NULL || pairs == NULL || epoll < 0)
        fail("out of memory or files");
    for (int i = 0; i < pid_count; i++)
        pids[i] = whole_number(words[numbers + 1 + i], 1, 1 << 30);
    for (int i = 0; i < capacity; i++)
        order[i] = clients[i].number = i;

    /* What is found is printed when nothing can be wrong any more. */
    char *text;
    size_t length;
    FILE *result = open_memstream(&text, &length);
    switch (scenario) {
    case ROUTE:
        window = whole_number(words[3], 1, MAX_WINDOW);
        route(result, count, seconds);
        break;
    case PACE: pace(result, count, whole_number(words[3], 1, 1000000), seconds); break;
    case HANDSHAKES: handshakes(result, count, seconds); break;
    case STORM: storm(result, count); break;
    case IDLE: idle(result, count); break;
    case GROUP: group(result, count, seconds); break;
    }
    fclose(result);
    printf("%s}\n", text);
    return 0;
}
