/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_NET_DOOR_INTERNAL_H
#define CM_NET_DOOR_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#define CM_DOOR_PREFACE     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define CM_DOOR_PREFACE_LEN (sizeof(CM_DOOR_PREFACE) - 1)

enum cm_door_speech {
    CM_DOOR_MORE, /* these bytes may become more than one of them */
    CM_DOOR_HTTP1,
    CM_DOOR_HTTP2,
    CM_DOOR_TLS,
    CM_DOOR_WRONG, /* not TLS where it has to be */
};

/* What the first bytes of a connection mean, to a port with TLS or without. */
enum cm_door_speech cm_door_listen_to(const char *bytes, size_t len, bool tls);

#endif
