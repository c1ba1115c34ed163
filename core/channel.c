/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the connection to the extended part: one client, one message at a time, every answer sent at once or never.
 * A client that does not read, or talks nonsense, is dropped; it can come back. Nothing here waits, and nothing a
 * client sends is used before it is checked. Who may connect at all is said by the socket's mode and group.
 */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "event.h"
#include "force.h"
#include "plan.h"

enum taking { NOT_TAKING, TAKING, REFUSED };

static const struct oomslice_channel_hooks *hooks;
static int epoll = -1, listener = -1, client = -1, ring = -1, event = -1;
static enum taking taking;
static bool held;
static uint64_t taking_generation; /* as the client called the plan, to say which one an answer is about */

/* A message as it came, with its descriptors; all that are still here at the end are closed. */
struct packet {
        struct oomslice_message message;
        int fds[OOMSLICE_CHANNEL_DESCRIPTORS + 13]; /* the kernel passes at most 253 */
        uint32_t fds_count;
};

int oomslice_channel_listen(const char *path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        mode_t mask;
        int fd, r = 0;

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path) + 1);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        (void)unlink(path);
        mask = umask(0117);
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
                r = -errno;
        (void)umask(mask);
        if (r < 0) {
                close(fd);
                return r;
        }
        return fd;
}

int oomslice_channel_init(int epoll_fd, int listen_fd, int ring_fd, int event_fd,
                          const struct oomslice_channel_hooks *channel_hooks) {
        epoll = epoll_fd;
        listener = listen_fd;
        ring = ring_fd;
        event = event_fd;
        hooks = channel_hooks;
        return oomslice_event_set(epoll, listener, EPOLLIN,
                                  (struct oomslice_event){OOMSLICE_EVENT_LISTEN, 0, 0});
}

static void drop_client(void) {
        if (taking == TAKING)
                oomslice_force_abort();
        taking = NOT_TAKING;
        if (client >= 0)
                close(client);
        client = -1;
}

static int watch_client(void) {
        const struct oomslice_event source = {OOMSLICE_EVENT_CLIENT, 0, 0};

        return oomslice_event_set(epoll, client, held ? 0 : EPOLLIN, source);
}

void oomslice_channel_accept(void) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return; /* gone again, or no descriptors left: it will try again */
        drop_client();
        client = fd;
        if (watch_client() < 0)
                drop_client();
}

bool oomslice_channel_has_client(void) {
        return client >= 0;
}

void oomslice_channel_hold(int hold) {
        if (held == !!hold)
                return;
        held = !!hold;
        if (client >= 0 && watch_client() < 0)
                drop_client();
}

/* Answers, with up to three descriptors. A client that has no room for an answer is not reading: it goes. */
static void answer(struct oomslice_message *message, const int *fds, size_t fds_count) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(3 * sizeof(int))];
        } control = {0};
        struct iovec data = {.iov_base = message, .iov_len = sizeof(*message)};
        struct msghdr packet = {.msg_iov = &data, .msg_iovlen = 1};
        const struct oomslice_force *force = oomslice_force_get();

        message->version = OOMSLICE_CHANNEL_VERSION;
        if (message->type != OOMSLICE_MESSAGE_PLAN_REPLY)
                message->generation = force ? force->plan.header->generation : 0;
        hooks->state(&message->state);
        if (fds_count > 0) {
                packet.msg_control = &control;
                packet.msg_controllen = CMSG_SPACE(fds_count * sizeof(int));
                control.header = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(fds_count * sizeof(int)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                };
                memcpy(CMSG_DATA(&control.header), fds, fds_count * sizeof(int));
        }
        if (sendmsg(client, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                drop_client();
}

static void answer_hello(const struct oomslice_message *hello) {
        struct oomslice_message reply = {.type = OOMSLICE_MESSAGE_HELLO_REPLY};
        const struct oomslice_force *force = oomslice_force_get();
        int fds[3] = {ring, event, force ? force->fd : -1};

        if (hello->version != OOMSLICE_CHANNEL_VERSION) {
                reply.status = -EPROTONOSUPPORT;
                answer(&reply, NULL, 0);
                drop_client();
                return;
        }
        reply.count = force ? 3 : 2;
        answer(&reply, fds, reply.count);
}

static void answer_plan(int result, uint32_t detail) {
        struct oomslice_message reply = {
                .type = OOMSLICE_MESSAGE_PLAN_REPLY,
                .generation = taking_generation,
                .status = result,
                .detail = detail,
        };

        answer(&reply, NULL, 0);
}

static void answer_act(const struct oomslice_message *asked) {
        struct oomslice_message reply = {.type = OOMSLICE_MESSAGE_ACT_REPLY};

        reply.status = hooks->act(asked, &reply.size);
        answer(&reply, NULL, 0);
}

static void answer_release(const struct oomslice_message *asked) {
        struct oomslice_message reply = {.type = OOMSLICE_MESSAGE_RELEASE_REPLY};

        reply.status = hooks->release(asked->cgroup_id);
        answer(&reply, NULL, 0);
}

static void answer_programs(const struct packet *packet) {
        struct oomslice_message reply = {.type = OOMSLICE_MESSAGE_PROGRAMS_REPLY};

        reply.status = hooks->programs(packet->fds, packet->fds_count);
        answer(&reply, NULL, 0);
}

static void take_begin(struct packet *packet) {
        uint32_t detail = 0;
        int r = OOMSLICE_PLAN_E_SEQUENCE;

        if (taking == TAKING)
                oomslice_force_abort();
        if (packet->fds_count == 1) {
                r = oomslice_force_begin(packet->fds[0], true, &detail);
                packet->fds_count = 0; /* it has it now, or has closed it */
        }
        taking = r == OOMSLICE_PLAN_OK ? TAKING : REFUSED;
        if (taking == REFUSED)
                answer_plan(r, detail);
}

static void take_descriptors(const struct packet *packet) {
        uint32_t detail = packet->message.first;
        int r;

        if (taking == REFUSED)
                return;
        if (taking == NOT_TAKING)
                r = OOMSLICE_PLAN_E_SEQUENCE;
        else if (packet->message.count != packet->fds_count) {
                oomslice_force_abort();
                r = OOMSLICE_PLAN_E_DESCRIPTORS;
        } else
                r = oomslice_force_add(packet->message.first, packet->fds, packet->fds_count, &detail);
        if (r == OOMSLICE_PLAN_OK)
                return;
        taking = REFUSED;
        answer_plan(r, detail);
}

static void take_commit(void) {
        uint32_t detail = 0;
        int r = OOMSLICE_PLAN_E_SEQUENCE;

        if (taking == REFUSED) {
                taking = NOT_TAKING;
                return;
        }
        if (taking == TAKING)
                r = oomslice_force_commit(&detail);
        taking = NOT_TAKING;
        if (r == OOMSLICE_PLAN_OK)
                hooks->plan_taken(oomslice_force_get()->fd);
        answer_plan(r, detail);
}

/* Takes all descriptors of a packet. False if there is no whole message: nothing to read, or nonsense. */
static bool receive(struct packet *packet) {
        static union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(((struct packet *)0)->fds))];
        } control;
        struct iovec data = {.iov_base = &packet->message, .iov_len = sizeof(packet->message)};
        struct msghdr message = {
                .msg_iov = &data,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t size;

        packet->fds_count = 0;
        size = recvmsg(client, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (size < 0)
                return errno == EAGAIN || errno == EINTR ? (packet->message.type = 0, true) : false;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
             header = CMSG_NXTHDR(&message, header)) {
                if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
                        continue;
                packet->fds_count = (uint32_t)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(packet->fds, CMSG_DATA(header), packet->fds_count * sizeof(int));
        }
        return size == sizeof(packet->message) && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

void oomslice_channel_receive(uint32_t events) {
        static struct packet packet;

        if (client < 0)
                return;
        /* Held, and the other end is gone: nobody is left to answer. */
        if (held && (events & (EPOLLHUP | EPOLLERR))) {
                drop_client();
                return;
        }
        if (!receive(&packet)) {
                drop_client();
        } else {
                struct oomslice_message reply = {.type = OOMSLICE_MESSAGE_STATE_REPLY};

                if (packet.message.type >= OOMSLICE_MESSAGE_PLAN_BEGIN &&
                    packet.message.type <= OOMSLICE_MESSAGE_PLAN_COMMIT)
                        taking_generation = packet.message.generation;
                switch (packet.message.type) {
                case 0: /* woken for nothing */
                        break;
                case OOMSLICE_MESSAGE_HELLO:
                        answer_hello(&packet.message);
                        break;
                case OOMSLICE_MESSAGE_PLAN_BEGIN:
                        take_begin(&packet);
                        break;
                case OOMSLICE_MESSAGE_PLAN_DESCRIPTORS:
                        take_descriptors(&packet);
                        break;
                case OOMSLICE_MESSAGE_PLAN_COMMIT:
                        take_commit();
                        break;
                case OOMSLICE_MESSAGE_ACT:
                        answer_act(&packet.message);
                        break;
                case OOMSLICE_MESSAGE_RELEASE:
                        answer_release(&packet.message);
                        break;
                case OOMSLICE_MESSAGE_PROGRAMS:
                        answer_programs(&packet);
                        break;
                case OOMSLICE_MESSAGE_STATE:
                        answer(&reply, NULL, 0);
                        break;
                default:
                        drop_client();
                }
        }
        for (uint32_t i = 0; i < packet.fds_count; i++)
                close(packet.fds[i]);
}
