/* SPDX-License-Identifier: Apache-2.0 */
/* What an attempt has come to, and whether another one may help. */
#include "llm/internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

const char *cm_llm_failure_name(enum cm_llm_failure failure)
{
    static const char *const names[] = {
        [CM_LLM_OK] = "ok",
        [CM_LLM_UNREACHABLE] = "unreachable",
        [CM_LLM_TIMEOUT] = "timeout",
        [CM_LLM_RATE_LIMITED] = "rate_limited",
        [CM_LLM_REFUSED] = "refused",
        [CM_LLM_BAD_REQUEST] = "bad_request",
        [CM_LLM_TOO_LONG] = "too_long",
        [CM_LLM_BAD_ANSWER] = "bad_answer",
        [CM_LLM_EMPTY] = "empty",
        [CM_LLM_CUT] = "cut",
        [CM_LLM_REFUSAL] = "refusal",
        [CM_LLM_TOO_LARGE] = "too_large",
        [CM_LLM_NO_MEMORY] = "no_memory",
    };

    return (size_t)failure < CM_COUNT_OF(names) ? names[failure] : "unknown";
}

static bool is_filter(const char *code)
{
    return strcasecmp(code, "content_filter") == 0 || strcasecmp(code, "content_policy_violation") == 0 ||
           strcasecmp(code, "ResponsibleAIPolicyViolation") == 0;
}

/* 429 also says that there is no money left: waiting does not help then. */
static void by_status(const struct cm_llm_reader *r, int status, struct cm_llm_verdict *v)
{
    v->again = false;
    if (status == 401 || status == 402 || status == 403) {
        v->failure = CM_LLM_REFUSED;
    } else if (status == 429) {
        v->failure = CM_LLM_RATE_LIMITED;
        v->again = strcmp(r->error_code, "insufficient_quota") != 0;
    } else if (r->too_long || status == 413) {
        v->failure = CM_LLM_TOO_LONG;
    } else if (is_filter(r->error_code)) {
        v->failure = CM_LLM_REFUSAL;
    } else if (status == 408 || status >= 500) {
        v->failure = status == 408 || status == 504 ? CM_LLM_TIMEOUT : CM_LLM_UNREACHABLE;
        v->again = true;
    } else if (status >= 400) {
        v->failure = CM_LLM_BAD_REQUEST;
    } else {
        v->failure = CM_LLM_BAD_ANSWER;
    }
}

static void say(struct cm_llm_verdict *v, const char *host, const char *text)
{
    snprintf(v->reason, sizeof v->reason, "%s: %s", host, text);
}

/* A URL that is too short, or too long, is what most people begin with. */
static const char *hint(const struct cm_llm_reader *r, int status)
{
    bool asks = status == 404 && r->api == CM_LLM_OPENAI && !strcasestr(r->error, "model");

    return asks ? " (is the base URL what stands before /chat/completions?)" : "";
}

static void bad_status(const struct cm_llm_reader *r, int status, const char *host, struct cm_llm_verdict *v)
{
    by_status(r, status, v);
    if (status == 400 || status == 404 || status == 422 || status == 501)
        v->quirk = r->quirk;
    snprintf(v->reason, sizeof v->reason, "HTTP %d from %s%s%s%s", status, host, hint(r, status), *r->error ? ": " : "",
             r->error);
}

/* An error in place of an answer, or in its middle. */
static void failed(const struct cm_llm_reader *r, const char *host, bool told, struct cm_llm_verdict *v)
{
    by_status(r, r->error_status ? r->error_status : 500, v);
    v->again &= !told;
    if (r->text.len > 0)
        v->failure = CM_LLM_CUT;
    say(v, host, *r->error ? r->error : *r->error_code ? r->error_code : "an error without words");
}

static void unfinished(const struct cm_llm_reader *r, const struct cm_fetch_end *end, const char *host, bool told,
                       struct cm_llm_verdict *v)
{
    bool nothing = r->text.len == 0 && !r->answer;

    if (end->why == CM_FETCH_TIMEOUT) {
        v->failure = CM_LLM_TIMEOUT;
        snprintf(v->reason, sizeof v->reason, "%s", end->text);
    } else if (r->text.len == 0 && (r->broken || (nothing && end->why == CM_FETCH_OK && end->received > 0))) {
        v->failure = CM_LLM_BAD_ANSWER;
        v->again = end->why == CM_FETCH_CUT;
        say(v, host, "what it has answered is not what a model service answers");
    } else {
        v->failure = CM_LLM_CUT;
        v->again = !told;
        say(v, host, r->broken ? "its answer goes on as something that is no answer" : "its answer broke off");
    }
}

static void finished(const struct cm_llm_reader *r, const char *host, struct cm_llm_verdict *v)
{
    v->failure = r->refused ? CM_LLM_REFUSAL : r->text.len == 0 ? CM_LLM_EMPTY : CM_LLM_OK;
    v->again = v->failure == CM_LLM_EMPTY;
    if (r->refused)
        say(v, host, "the model, or a filter, has declined");
    else if (v->again)
        say(v, host, strcmp(r->finish, "length") ? "an empty reply" : "an empty reply: no tokens were left for it");
}

/* No answer began. */
static void no_answer(const struct cm_fetch_end *end, struct cm_llm_verdict *v)
{
    v->failure = end->why == CM_FETCH_TIMEOUT ? CM_LLM_TIMEOUT : CM_LLM_UNREACHABLE;
    v->again = end->why == CM_FETCH_CONNECT || end->why == CM_FETCH_CUT;
    snprintf(v->reason, sizeof v->reason, "%s", end->text);
}

void cm_llm_judge(const struct cm_llm_reader *r, const struct cm_fetch_end *end, const char *host, bool told,
                  struct cm_llm_verdict *ret)
{
    memset(ret, 0, sizeof *ret);
    if (r->no_memory || end->why == CM_FETCH_MEMORY) {
        ret->failure = CM_LLM_NO_MEMORY;
        say(ret, host, "no memory for its answer");
    } else if (r->too_large || end->why == CM_FETCH_TOO_LARGE) {
        ret->failure = CM_LLM_TOO_LARGE;
        say(ret, host, "its reply is longer than is taken");
    } else if (end->status == 0) {
        no_answer(end, ret);
    } else if (end->status < 200 || end->status > 299) {
        bad_status(r, end->status, host, ret);
    } else if (r->finished) {
        finished(r, host, ret);
    } else if (r->failed) {
        failed(r, host, told, ret);
    } else {
        unfinished(r, end, host, told, ret);
    }
}

double cm_llm_wait(const struct cm_llm_config *config, unsigned made, double retry_after_s, double random)
{
    double wait = config->backoff_s;

    if (retry_after_s >= 0)
        return retry_after_s;
    for (unsigned i = 1; i < made && wait < config->backoff_max_s; i++)
        wait *= 2;
    wait = wait < config->backoff_max_s ? wait : config->backoff_max_s;
    return wait * (0.8 + 0.4 * random);
}
