/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/rows.h"

#include <string.h>

#include "base/buf.h"
#include "conf/schema.h"
#include "conf/value.h"

const char *cm_row_wants(enum cm_row_type type)
{
    static const char *const wanted[] = {
        [CM_ROW_TEXT] = "a text",
        [CM_ROW_SECRET] = "a text",
        [CM_ROW_PATH] = "a path",
        [CM_ROW_UINT] = "a whole number",
        [CM_ROW_BYTES] = "a size such as 512Mi",
        [CM_ROW_SECONDS] = "a time such as 30 or 250ms",
        [CM_ROW_NUMBER] = "a number such as 2.5",
        [CM_ROW_LEVEL] = "DEBUG, INFO, WARNING or ERROR",
        [CM_ROW_BOOL] = "true or false",
        [CM_ROW_PORTS] = "a port, or up to four separated by commas,",
    };

    return wanted[type];
}

static bool is_text(const struct cm_row *row)
{
    return row->type == CM_ROW_TEXT || row->type == CM_ROW_SECRET || row->type == CM_ROW_PATH;
}

static int bad_value(const struct cm_row *row, const char *source, const char *text, struct cm_err *err)
{
    const char *wants = cm_row_wants(row->type);

    if (row->type == CM_ROW_LEVEL || row->type == CM_ROW_BOOL)
        return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.80s\" is not %s", source, text, wants);
    if (is_text(row))
        return cm_err_set(err, CM_ERR_CONFIG, "%s: must have %.0f to %.0f bytes", source, row->min, row->max);
    return cm_err_set(err, CM_ERR_CONFIG, "%s: \"%.80s\" is not %s from %.12g to %.12g", source, text, wants, row->min,
                      row->max);
}

static bool in_range(const struct cm_row *row, double value)
{
    return value >= row->min && value <= row->max;
}

static bool parse(enum cm_row_type type, const char *text, double *ret)
{
    bool yes;

    switch (type) {
    case CM_ROW_UINT:
        return cm_conf_parse_uint(text, ret);
    case CM_ROW_BYTES:
        return cm_conf_parse_bytes(text, ret);
    case CM_ROW_NUMBER:
        return cm_conf_parse_number(text, ret);
    case CM_ROW_LEVEL:
        return cm_conf_parse_level(text, ret);
    case CM_ROW_BOOL:
        if (!cm_conf_parse_bool(text, &yes))
            return false;
        *ret = yes;
        return true;
    default:
        return cm_conf_parse_seconds(text, ret);
    }
}

static bool text_fits(const struct cm_row *row, const char *text)
{
    size_t len = strlen(text);

    return in_range(row, (double)len) && len < CM_CONF_TEXT_MAX;
}

static void set_number(const struct cm_row *row, void *field, double value)
{
    if (row->type == CM_ROW_SECONDS || row->type == CM_ROW_NUMBER)
        *(double *)field = value;
    else if (row->type == CM_ROW_BYTES)
        *(uint64_t *)field = (uint64_t)value;
    else if (row->type == CM_ROW_BOOL)
        *(bool *)field = value > 0;
    else
        *(unsigned *)field = (unsigned)value;
}

static bool add_port(struct cm_ports *ports, unsigned port)
{
    for (unsigned i = 0; i < ports->count; i++)
        if (ports->at[i] == port)
            return true;
    if (ports->count == CM_PORTS_MAX)
        return false;
    ports->at[ports->count++] = port;
    return true;
}

static bool parse_ports(const struct cm_row *row, struct cm_ports *field, const char *text)
{
    struct cm_ports ports = {0};
    char word[16];
    double port;

    for (;;) {
        text += strspn(text, " ");
        size_t len = strcspn(text, ", ");
        if (len >= sizeof(word))
            return false;
        memcpy(word, text, len);
        word[len] = '\0';
        if (!cm_conf_parse_uint(word, &port) || !in_range(row, port) || !add_port(&ports, (unsigned)port))
            return false;
        text += len + strspn(text + len, " ");
        if (*text == '\0')
            break;
        if (*text++ != ',')
            return false;
    }
    *field = ports;
    return true;
}

int cm_row_check(const struct cm_row *row, const char *source, const char *text, struct cm_err *err)
{
    double value = 0;
    struct cm_ports ports;
    bool ok = is_text(row)                ? text_fits(row, text)
              : row->type == CM_ROW_PORTS ? parse_ports(row, &ports, text)
                                          : parse(row->type, text, &value) && in_range(row, value);

    return ok ? 0 : bad_value(row, source, text, err);
}

int cm_row_set(const struct cm_row *row, void *conf, const char *source, const char *text, struct cm_err *err)
{
    void *field = (char *)conf + row->offset;
    double value = 0;
    int rc = cm_row_check(row, source, text, err);

    if (rc < 0)
        return rc;
    if (row->type == CM_ROW_PORTS)
        return parse_ports(row, field, text) ? 0 : CM_ERR_CONFIG;
    if (!is_text(row)) {
        parse(row->type, text, &value);
        set_number(row, field, value);
        return 0;
    }
    memset(field, 0, CM_CONF_TEXT_MAX); /* no rest of a longer one stays: two equal settings have equal bytes */
    memcpy(field, text, strlen(text) + 1);
    return 0;
}

const struct cm_row *cm_row_by_field(const struct cm_schema *schema, const char *field, size_t len)
{
    for (size_t i = 0; i < schema->count; i++)
        if (strlen(schema->rows[i].field) == len && memcmp(schema->rows[i].field, field, len) == 0)
            return &schema->rows[i];
    return NULL;
}

const struct cm_row *cm_row_by_flag(const struct cm_schema *schema, const char *flag, size_t len)
{
    for (size_t i = 0; i < schema->count; i++)
        if (strlen(schema->rows[i].flag) == len && memcmp(schema->rows[i].flag, flag, len) == 0)
            return &schema->rows[i];
    return NULL;
}

static size_t size_of(const struct cm_row *row)
{
    switch (row->type) {
    case CM_ROW_TEXT:
    case CM_ROW_SECRET:
    case CM_ROW_PATH:
        return CM_CONF_TEXT_MAX;
    case CM_ROW_BYTES:
        return sizeof(uint64_t);
    case CM_ROW_SECONDS:
    case CM_ROW_NUMBER:
        return sizeof(double);
    case CM_ROW_BOOL:
        return sizeof(bool);
    case CM_ROW_PORTS:
        return sizeof(struct cm_ports);
    default:
        return sizeof(unsigned);
    }
}

bool cm_row_equal(const struct cm_row *row, const void *a, const void *b)
{
    return memcmp((const char *)a + row->offset, (const char *)b + row->offset, size_of(row)) == 0;
}

void cm_row_copy(const struct cm_row *row, void *to, const void *from)
{
    memcpy((char *)to + row->offset, (const char *)from + row->offset, size_of(row));
}

static int print_bytes(uint64_t n, struct cm_buf *to)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi"};
    unsigned unit = 0;

    while (n > 0 && n % 1024 == 0 && unit < 3) {
        n /= 1024;
        unit++;
    }
    return cm_buf_printf(to, "%llu%s", (unsigned long long)n, units[unit]);
}

static int print_ports(const struct cm_ports *ports, struct cm_buf *to)
{
    int rc = 0;

    for (unsigned i = 0; i < ports->count && rc == 0; i++)
        rc = cm_buf_printf(to, "%s%u", i > 0 ? "," : "", ports->at[i]);
    return rc;
}

int cm_row_print(const struct cm_row *row, const void *conf, struct cm_buf *to)
{
    static const char *const levels[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
    const void *field = (const char *)conf + row->offset;

    switch (row->type) {
    case CM_ROW_TEXT:
    case CM_ROW_PATH:
        return cm_buf_puts(to, field);
    case CM_ROW_SECRET:
        return cm_buf_puts(to, *(const char *)field ? "***" : "");
    case CM_ROW_UINT:
        return cm_buf_printf(to, "%u", *(const unsigned *)field);
    case CM_ROW_BYTES:
        return print_bytes(*(const uint64_t *)field, to);
    case CM_ROW_SECONDS:
    case CM_ROW_NUMBER:
        return cm_buf_printf(to, "%.12g", *(const double *)field);
    case CM_ROW_LEVEL:
        return cm_buf_puts(to, levels[*(const unsigned *)field & 3]);
    case CM_ROW_BOOL:
        return cm_buf_puts(to, *(const bool *)field ? "true" : "false");
    case CM_ROW_PORTS:
        return print_ports(field, to);
    }
    return 0;
}
