/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to language models: chat completions in the manner of OpenAI, and Anthropic's messages.
 *
 * Answers are streamed, tried again where that can help (429, 5xx, no connection, a stream that was cut before its first
 * word), counted and priced. Whatever a model service sends, the caller gets a reply: a failure is a value in it.
 */
#ifndef CM_LLM_H
#define CM_LLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cm_egress;
struct cm_llm;
struct cm_llm_call;
struct cm_loop;

enum cm_llm_api { CM_LLM_OPENAI, CM_LLM_ANTHROPIC };

/* One model at one place. Strings are the caller's and stay as long as calls of it. */
struct cm_llm_model {
    const char *name; /* as the service knows it */
    const char *base_url; /* "https://api.openai.com/v1": what comes before /chat/completions or /v1/messages */
    const char *api_key; /* NULL or "": none is sent */
    const char *sampling; /* JSON object whose members join the request's body ("temperature", ...), or NULL */
    enum cm_llm_api api;
    unsigned max_output_tokens; /* 0: nothing is said (Anthropic: 32768) */
};

struct cm_llm_config {
    double timeout_s; /* of one attempt; 300 */
    double idle_timeout_s; /* without a byte of the answer; 120 */
    unsigned attempts; /* 1 to 10; 4 */
    double backoff_s,
        backoff_max_s; /* wait before attempt n+1: backoff * 2^(n-1) * 0.8..1.2, or Retry-After, which may take all the time
                        * that is left; 0.5, 30 */
    uint64_t reply_max; /* bytes of a reply's text; 8 MiB */
    const char
        *prices; /* JSON text: models with prices and windows, beside and over our own (rlm/models.json); or NULL */
};

enum cm_llm_role { CM_LLM_SYSTEM, CM_LLM_USER, CM_LLM_ASSISTANT };

struct cm_llm_message {
    enum cm_llm_role role;
    const char *text; /* UTF-8 */
    size_t len;
};

enum cm_llm_failure {
    CM_LLM_OK,
    CM_LLM_UNREACHABLE, /* no connection, or the service's own failure (5xx), after all attempts */
    CM_LLM_TIMEOUT,
    CM_LLM_RATE_LIMITED,
    CM_LLM_REFUSED, /* 401, 403: the key */
    CM_LLM_BAD_REQUEST, /* 400, 404, 422: model name, parameters */
    CM_LLM_TOO_LONG, /* the prompt is beyond the model's window */
    CM_LLM_BAD_ANSWER, /* not JSON, or not an answer */
    CM_LLM_EMPTY, /* no text at all, twice */
    CM_LLM_CUT, /* the stream ended in the middle: `text` has what came */
    CM_LLM_REFUSAL, /* the model or its filter declined: `text` may hold its words */
    CM_LLM_TOO_LARGE, /* the reply is beyond reply_max */
    CM_LLM_NO_MEMORY,
};

struct cm_llm_usage {
    uint64_t input_tokens, output_tokens, cached_tokens;
    bool estimated; /* the service said nothing: four characters a token */
    bool priced;
    double cost; /* USD; the service's own figure where it names one, else by our prices; 0 when not priced */
};

/* Pointers live until `done` returns. */
struct cm_llm_reply {
    enum cm_llm_failure failure;
    const char *text; /* UTF-8; "" when there is none */
    size_t len;
    const char *reason; /* for a person: "HTTP 429 from api.openai.com: ..."; "" when all went well */
    const char *finish; /* "stop", "length", ... as OpenAI calls them; "" unknown */
    const char *model; /* that has answered, as the service calls it; the requested name where it says nothing */
    struct cm_llm_usage usage; /* of all attempts together */
    unsigned attempts;
    double seconds;
};

struct cm_llm_ops {
    void (*delta)(void *arg, const char *text,
                  size_t len); /* may be NULL: words as they come; an attempt that failed after
                                                              its first word is not repeated */
    void (*done)(void *arg, const struct cm_llm_reply *reply); /* exactly once, from the loop; not after a cancel */
};

int cm_llm_open(struct cm_loop *loop, struct cm_egress *egress, const struct cm_llm_config *config, struct cm_llm **ret,
                struct cm_err *err);
/* Cancels what is under way. Accepts NULL. */
struct cm_llm *cm_llm_free(struct cm_llm *l);
/* `deadline_s`, 0: none, is of all attempts together: CM_LLM_TIMEOUT. Messages are copied. System messages come first. */
int cm_llm_ask(struct cm_llm *l, const struct cm_llm_model *model, const struct cm_llm_message *messages, size_t count,
               double deadline_s, const struct cm_llm_ops *ops, void *arg, struct cm_llm_call **ret,
               struct cm_err *err);
/* Accepts NULL. */
void cm_llm_cancel(struct cm_llm_call *call);

/* "unreachable", "timeout", ...: stable names of failures. */
const char *cm_llm_failure_name(enum cm_llm_failure failure);
/* Tokens of a model's window by the table: the row with the longest name that its name begins with; 128,000 for none. */
unsigned cm_llm_window(const struct cm_llm *l, const char *model);
/* UTF-8 code points / 4, rounded up. */
uint64_t cm_llm_estimate(const char *text, size_t len);

/* A model file run by us. Starts llama-server, found on the PATH, on a free loopback port with the GGUF file `path` (or the
 * one that a folder holds; more than one: the first by name) and tells its base URL when it answers. It ends with us. */
struct cm_llama;
int cm_llama_open(struct cm_loop *loop, struct cm_egress *egress, const char *path,
                  void (*ready)(void *arg, const char *base_url, const struct cm_err *err), void *arg,
                  struct cm_llama **ret, struct cm_err *err);
/* The model's own name: that of its file, without folder and ".gguf". */
const char *cm_llama_model(struct cm_llama *s);
struct cm_llama *cm_llama_free(struct cm_llama *s);

#endif
