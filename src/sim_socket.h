/* sim_socket.h: sockets of the simulated kernel.
 *
 *   sim_socket.c   making, addresses, options; which of the two below a call goes to
 *   sim_stream.c   TCP and Unix streams
 *   sim_dgram.c    UDP and Unix datagrams */
#ifndef SIM_SOCKET_H
#define SIM_SOCKET_H

#include "sim.h"
#include <sys/un.h>

struct sim_address {
    union {
        struct sockaddr_storage storage;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t length; /* 0: none */
};

enum sim_state {
    STATE_NEW,
    STATE_LISTENING,
    STATE_CONNECTING,
    STATE_CONNECTED,
    STATE_CLOSED /* was reset, refused or timed out, or both ends are through */
};

struct sim_option {
    int level, option, value;
};

struct sim_socket {
    struct sim_file file;
    link_t link; /* of its host's sockets */
    int family, type, protocol;
    int error; /* SO_ERROR, positive */
    struct sim_address local, peer;
    bool own_address, own_port; /* of `local`: bind(2) named them */
    bool released;              /* local's port is only told any more, others may have it */
    bool v6only, reuse_address, reuse_port;
    struct linger linger;
    size_t send_limit, receive_limit;
    struct sim_option options[16]; /* those that only have to be told again */
    unsigned option_count;
    struct sim_path *path; /* Unix: its name in the file system */

    bool shut_read, shut_write;

    /* Streams. */
    enum sim_state state;
    struct sim_conn *conn;
    int side;
    bool ended;                  /* the peer's end of stream came */
    bool accepted;               /* a child: its name is its listener's */
    bool dead;                   /* shutdown(2) after a failed connect: nothing can be done with it */
    bool told;                   /* connect(2) said that it is connected */
    link_t queue;                /* a listener's: connected, not accepted */
    link_t in_queue;             /* of a child */
    unsigned backlog, waiting;   /* waiting: those half-way included */
    struct sim_socket *listener; /* of a child that was not accepted yet */

    /* Datagrams: struct packet. */
    link_t packets;
    uint32_t peer_number; /* Unix: whom connect(2) found, whatever has its name now */
    size_t queued;
};

/* A name in the host's file system: it stays when the socket is closed, as unix(7) has it. */
struct sim_path {
    link_t link;
    struct sim_socket *socket; /* or NULL */
    socklen_t length;
    struct sockaddr_un address;
};

/* sim_socket.c */
struct sim_socket *sim_socket_new(struct sim_host *host, int family, int type, int protocol);
void sim_socket_free(struct sim_socket *socket);
struct sim_socket *sim_socket_of(struct sim_host *host, int fd, int *error);
int sim_socket_open(struct sim_host *host, int family, int type, int protocol);
int sim_bind(struct sim_socket *socket, const struct sockaddr *address, socklen_t length);
int sim_bind_any(struct sim_socket *socket, const struct sim_address *toward);                /* if it is not bound */
struct sim_address sim_source(const struct sim_socket *socket, const struct sim_address *to); /* who a packet is from */
void sim_toward(const struct sim_socket *socket, struct sim_address *to); /* if that is any address */
void sim_release(struct sim_socket *socket); /* a connection is over: its port, if bind(2) did not name it */
void sim_unbind(struct sim_socket *socket, bool was_connected); /* that, and its address likewise */
int sim_listen(struct sim_socket *socket, int backlog);
int sim_setsockopt(struct sim_socket *socket, int level, int option, const void *value, socklen_t length);
int sim_getsockopt(struct sim_socket *socket, int level, int option, void *value, socklen_t *length);
int sim_sockname(struct sim_socket *socket, struct sockaddr *address, socklen_t *length);
int sim_peername(struct sim_socket *socket, struct sockaddr *address, socklen_t *length);
int sim_take_error(struct sim_socket *socket); /* 0 or a negated errno; clears it */

/* Any v4-mapped address as the IPv4 one, and, for a socket of that family, back. */
struct sim_address sim_plain(const struct sockaddr *address, socklen_t length);
struct sim_address sim_shown(const struct sim_address *address, int family);
void sim_address_out(const struct sim_address *from, struct sockaddr *address, socklen_t *length);
/* Checks an address that a program gave: its family and size, and takes it into `ret`, plain. */
enum sim_purpose {
    SIM_BIND,
    SIM_CONNECT,
    SIM_SEND
};
int sim_address_in(const struct sim_socket *socket, const struct sockaddr *address, socklen_t length,
                   enum sim_purpose purpose, struct sim_address *ret);
/* Whose packets for `to`, from there to here, come: NULL where nobody is. `host` NULL: that is no host's address. */
struct sim_host *sim_route_to(struct sim_host *from, const struct sim_address *to);
struct sim_socket *sim_socket_at(struct sim_host *host, int type, const struct sim_address *to,
                                 const struct sim_address *from);
int sim_unix_find(struct sim_host *host, int type, const struct sim_address *to, struct sim_socket **ret);
bool sim_address_equal(const struct sim_address *a, const struct sim_address *b);

/* sim_stream.c */
extern const struct sim_kind sim_stream_kind;
int sim_stream_connect(struct sim_socket *socket, const struct sockaddr *address, socklen_t length);
int sim_stream_accept(struct sim_socket *listener, struct sim_socket **child);
ssize_t sim_stream_recv(struct sim_socket *socket, void *data, size_t size, int flags);
ssize_t sim_stream_send(struct sim_socket *socket, const void *data, size_t size);
int sim_stream_shutdown(struct sim_socket *socket, int how);
void sim_stream_named(struct sim_socket *socket); /* a Unix socket got its name: its peer sees it */
bool sim_stream_break(struct sim_socket *socket); /* a fault: both ends are reset */
void sim_stream_drop_first(struct sim_socket *listener);

/* sim_dgram.c */
extern const struct sim_kind sim_dgram_kind;
int sim_dgram_connect(struct sim_socket *socket, const struct sockaddr *address, socklen_t length);
ssize_t sim_dgram_recv(struct sim_socket *socket, void *data, size_t size, int flags, struct sim_address *from);
ssize_t sim_dgram_send(struct sim_socket *socket, const void *data, size_t size, const struct sockaddr *address,
                       socklen_t length);
void sim_dgram_named(struct sim_socket *socket); /* a Unix socket got its name: what it sent has it, too */
int sim_dgram_shutdown(struct sim_socket *socket, int how);

#endif
