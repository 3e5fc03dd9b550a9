/* The floor: what recv and send cost, and nothing else. `floor PORT`

   It knows the load by heart (bench/load.c) and checks nothing: where in the bytes of a message the number of the
   recipient stands, and that registrations are the only texts below 126 bytes. Not to be used for anything else. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define ADDRESSES (1 << 20)
#define MAX_FILES (1 << 20)
#define NUMBER_AT 44 /* in the text of a message: the last twelve digits of the UUID */
#define WELCOME "Welcome! Your temporary UUID is 00000000-0000-4000-8000-000000000000"

static int fd_of[ADDRESSES]; /* by the number in the UUID */
static bool upgraded[MAX_FILES];

static void upgrade(int fd)
{
    static const char response[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        "\x81\x44" WELCOME;
    _Static_assert(sizeof WELCOME - 1 == 0x44, "the length in the frame's head");
    upgraded[fd] = true;
    send(fd, response, sizeof response - 1, MSG_NOSIGNAL);
}

static void unmask(unsigned char *payload, const unsigned char *mask, size_t length)
{
    for (size_t i = 0; i < length; i++)
        payload[i] ^= mask[i % 4];
}

static int number_in(const unsigned char *payload)
{
    int number = 0;
    for (int i = 0; i < 12; i++)
        number = number * 10 + payload[NUMBER_AT + i] - '0';
    return number % ADDRESSES;
}

/* The length of a frame; the frame is done with. */
static size_t serve_frame(int fd, unsigned char *frame)
{
    bool is_short = (frame[1] & 0x7f) < 126;
    size_t length = is_short ? frame[1] & 0x7f : frame[2] << 8 | frame[3];
    unsigned char *mask = frame + (is_short ? 2 : 4), *payload = mask + 4;
    unmask(payload, mask, length);
    if (frame[0] == 0x88) {
        send(fd, "\x88\x00", 2, MSG_NOSIGNAL);
    } else if (is_short) {
        fd_of[number_in(payload)] = fd;
    } else {
        /* The head of a server's frame has no mask, so it fits right before the payload. */
        memmove(payload - 4, frame, 4);
        payload[-3] &= 0x7f;
        send(fd_of[number_in(payload)], payload - 4, length + 4, MSG_NOSIGNAL);
    }
    return payload + length - frame;
}

static void serve(int fd)
{
    static unsigned char buffer[65536];
    ssize_t received = recv(fd, buffer, sizeof buffer, 0);
    if (received <= 0) {
        upgraded[fd] = false;
        close(fd);
    } else if (!upgraded[fd]) {
        upgrade(fd);
    } else {
        for (unsigned char *at = buffer; at < buffer + received;)
            at += serve_frame(fd, at);
    }
}

int main(int argc, char **argv)
{
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.fd = listener};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 2048) != 0
        || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
        return 1;
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != listener) {
                serve(events[i].data.fd);
                continue;
            }
            int fd = accept(listener, NULL, NULL);
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
