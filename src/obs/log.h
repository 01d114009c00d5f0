/* SPDX-License-Identifier: Apache-2.0 */
/* Structured log: one JSON object per line, one write per line.
 *
 *     cm_log(CM_LOG_INFO, "session_created", CM_LOG_STR("session", id), CM_LOG_INT("pid", pid));
 *
 * The sink belongs to the process; before cm_log_open() nothing is written. Usual keys: session, exec,
 * correlation_id. A line never holds more than CM_LOG_LINE_MAX bytes: values that do not fit are cut, and fields
 * behind them are left out. A sink that cannot take a line at once loses it, and the next line that gets
 * through says how many were lost. Never log code, contexts, output or secrets above DEBUG.
 */
#ifndef CM_OBS_LOG_H
#define CM_OBS_LOG_H

#include <stdbool.h>
#include <stdint.h>

#define CM_LOG_LINE_MAX 4096 /* PIPE_BUF: a pipe that polls writable takes it whole */

enum cm_log_level { CM_LOG_DEBUG, CM_LOG_INFO, CM_LOG_WARNING, CM_LOG_ERROR, CM_LOG_OFF };

struct cm_log_field {
    const char *key;
    enum { CM_LOG_IS_STR, CM_LOG_IS_INT, CM_LOG_IS_REAL, CM_LOG_IS_BOOL } type;
    union {
        const char *s; /* NULL leaves the field out */
        int64_t i;
        double f;
        bool b;
    };
};

#define CM_LOG_STR(k, v)  ((struct cm_log_field){.key = (k), .type = CM_LOG_IS_STR, .s = (v)})
#define CM_LOG_INT(k, v)  ((struct cm_log_field){.key = (k), .type = CM_LOG_IS_INT, .i = (int64_t)(v)})
#define CM_LOG_REAL(k, v) ((struct cm_log_field){.key = (k), .type = CM_LOG_IS_REAL, .f = (v)})
#define CM_LOG_BOOL(k, v) ((struct cm_log_field){.key = (k), .type = CM_LOG_IS_BOOL, .b = (v)})

/* The arguments are not evaluated when the level is filtered out. */
#define cm_log(level, event, ...)                                                                                      \
    do {                                                                                                               \
        if (cm_log_on(level))                                                                                          \
            cm_log_write((level), (event), (const struct cm_log_field[]){__VA_ARGS__ __VA_OPT__(, ){.key = 0}});       \
    } while (0)

/* The descriptor stays the caller's; -1 closes the sink. */
void cm_log_open(int fd, enum cm_log_level least);
/* Of an open sink. */
void cm_log_set_level(enum cm_log_level least);
/* "DEBUG", "INFO", "WARNING" or "WARN", "ERROR" or "CRITICAL", in any case. False when it is none of them. */
bool cm_log_parse_level(const char *text, enum cm_log_level *ret);
bool cm_log_on(enum cm_log_level level);
void cm_log_write(enum cm_log_level level, const char *event, const struct cm_log_field *fields);
/* Lines lost since the start. */
uint64_t cm_log_dropped(void);

#endif
