/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of the file, every part at a page's border, all of it sparse:
 *
 *     header   what is valid, and for two states each: instance, host state, number of pages
 *     list     numbers of the pages that have a shadow, in the order in which they got one
 *     undo     what the newest save has overwritten
 *     shadow   copies of pages, each at its own place
 *
 * Page numbers count the linear memory first, then the topmost STACK_PAGES of each green thread's stack.
 *
 * Saving. A page can differ from its shadow only if it is the process's own: written to since it was mapped. Those
 * are found in the page map, and only if there were page faults since the last look: without a fault no page can have
 * become one's own. Each is compared with its shadow, and the lines of 64 bytes that differ are copied to the shadow;
 * their old content goes to the undo log first. So a save that is cut short can be taken back, and a finished one can
 * be undone. A page without a shadow gets one by its entry in the list; a state knows how many entries it has.
 *
 * One word, `commit`, says what is valid. It changes by a single store, and a killed process has made its stores in
 * program order:
 *
 *     ACTIVE     which of the two states the shadows hold
 *     SAVED      there is one at all
 *     WRITING    the undo log leads back to the active state: a save was cut short
 *     UNDOABLE   the undo log leads back to the other state
 *
 * Large sessions. Shadow and own page are two copies. When more than HOT_MAX pages above the image are own, that
 * memory is mapped from the shadows, privately: the process sees the same bytes, and keeps one copy.
 */
#include "image/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/engine.h"
#include "image/format.h"
#include "jail/jail.h"

enum {
    PAGE = 4096,
    LINE = 64,
    HEADER_SIZE = 64 << 10,
    STACK_PAGES = 256, /* shadowed of each green thread's stack: one that rests deeper cannot be saved */
    HOT_MAX = 512,     /* own pages above the image that are kept beside their shadows */
    PORTION = 4096,    /* pages that a large save gives back at a time */
    UNDO_KEPT = 1 << 20,
    ENTRIES = 4096, /* of the page map, read at once */
};
#define BASE      0x400000000ul /* of the mapping: behind the stacks of layout.h */
#define PAGES_MAX (CM_MEMORY_MAX / PAGE + CM_STACKS * STACK_PAGES)

enum { ACTIVE = 1, SAVED = 2, WRITING = 4, UNDOABLE = 8 };

struct state {
    uint64_t seq;
    uint32_t pages; /* entries of the list */
    Z_guest_instance_t instance;
    struct cm_guest_state host;
};

struct header {
    char magic[8];
    char image_id[CM_IMAGE_ID_MAX]; /* of the image that fills the gaps, which names the guest's code as well */
    uint64_t commit, undo_len;
    uint32_t listed; /* entries of the list, also of a state that was taken back */
    struct state states[2];
};
_Static_assert(sizeof(struct header) <= HEADER_SIZE, "the header has its room");

/* The old content of a page's lines, in the undo log: as many lines as the mask has bits. */
struct undo {
    uint64_t page, mask;
    uint8_t lines[][LINE];
};

#define MAGIC "cm-save1"

/* Where everything is: by the size of the memory, so that a session cannot make its file larger than that. */
static struct {
    uint64_t memory_pages, image_pages, pages, undo_at, undo_max, shadow_at, size;
} at;

static struct header *const header = (struct header *)BASE;
static uint32_t *const list = (uint32_t *)(BASE + HEADER_SIZE);

static const char *image_id;
static uint32_t own[PAGES_MAX], own_count;
static long faults_seen = -1;
static uint64_t undo_used; /* bytes of the undo log that hold memory */

/* ---- sets of pages */

typedef uint64_t page_set[(PAGES_MAX + 63) / 64];

static page_set shadowed, guards;

static bool has(const page_set set, uint32_t page)
{
    return set[page / 64] >> page % 64 & 1;
}

static void put(page_set set, uint32_t page)
{
    set[page / 64] |= 1ull << page % 64;
}

/* ---- the mapping */

static uint64_t pages_up(uint64_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void lay_out(uint64_t image_size)
{
    at.image_pages = image_size / PAGE;
    at.memory_pages = (uint64_t)cm_state.max_pages * (65536 / PAGE);
    at.pages = at.memory_pages + CM_STACKS * STACK_PAGES;
    at.undo_at = HEADER_SIZE + pages_up(at.pages * sizeof *list);
    at.undo_max = at.pages * (PAGE + sizeof(struct undo));
    at.shadow_at = at.undo_at + pages_up(at.undo_max);
    at.size = at.shadow_at + at.pages * PAGE;
}

static uint8_t *shadow_of(uint32_t page)
{
    return (uint8_t *)(BASE + at.shadow_at) + (uint64_t)page * PAGE;
}

static uint8_t *live(uint32_t page)
{
    if (page < at.memory_pages)
        return CM_MEMORY + (uint64_t)page * PAGE;
    uint64_t slot = (page - at.memory_pages) / STACK_PAGES, nth = (page - at.memory_pages) % STACK_PAGES;
    return (uint8_t *)(CM_STACK_BASE + (slot + 1) * CM_STACK_SIZE - (STACK_PAGES - nth) * PAGE);
}

static int size_file(int fd, struct cm_err *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return cm_err_sys(err, errno, "look at the checkpoint");
    if (st.st_size == 0) {
        /* It cannot grow under a session's hands, nor shrink under a mapping. */
        if (ftruncate(fd, (off_t)at.size) || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
            return cm_err_sys(err, errno, "size the checkpoint");
    } else if ((uint64_t)st.st_size != at.size) {
        return cm_err_set(err, CM_ERR_SANDBOX, "the checkpoint was made for another amount of memory");
    }
    return 0;
}

int cm_checkpoint_map(int fd, const struct cm_image *image, struct cm_err *err)
{
    lay_out(image->memory_size);
    image_id = image->id;
    int rc = size_file(fd, err);
    if (rc)
        return rc;
    void *p = mmap((void *)BASE, at.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    if (p == MAP_FAILED)
        return cm_err_sys(err, errno, "map the checkpoint");
    return 0;
}

/* ---- which pages may have changed */

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE    (1ull << 61) /* the image's page, or a shadow */

static long faults(void)
{
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) ? -1 : use.ru_minflt + use.ru_majflt;
}

static bool is_own(uint64_t entry)
{
    return (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) && !(entry & PAGEMAP_FILE);
}

static bool look_for_own(void)
{
    static uint64_t entries[ENTRIES];
    uint64_t end = cm_guest_size() / PAGE;
    own_count = 0;
    for (uint64_t first = 0; first < end; first += ENTRIES) {
        uint64_t count = end - first < ENTRIES ? end - first : ENTRIES;
        off_t from = (off_t)((CM_MEMORY_BASE / PAGE + first) * sizeof *entries);
        if (pread(CM_JAIL_PAGEMAP, entries, count * sizeof *entries, from) != (ssize_t)(count * sizeof *entries))
            return false;
        for (uint64_t i = 0; i < count; i++)
            if (is_own(entries[i]))
                own[own_count++] = (uint32_t)(first + i);
    }
    return true;
}

static bool find_own(void)
{
    long now = faults();
    if (now >= 0 && now == faults_seen)
        return true;
    for (uint32_t i = 0; i < cm_state.guard_count; i++)
        put(guards, cm_state.guards[i] / PAGE);
    return look_for_own();
}

/* ---- saving */

static bool is_zero(const uint8_t *page)
{
    return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

/* The lines that differ go to the shadow; what they were, to the undo log. */
static void save_lines(uint32_t page, const uint8_t *now, uint8_t *shadow)
{
    struct undo *u = (struct undo *)(BASE + at.undo_at + header->undo_len);
    uint64_t mask = 0;
    unsigned n = 0;
    for (unsigned i = 0; i < PAGE / LINE; i++)
        if (memcmp(now + i * LINE, shadow + i * LINE, LINE)) {
            mask |= 1ull << i;
            memcpy(u->lines[n++], shadow + i * LINE, LINE);
        }
    u->page = page;
    u->mask = mask;
    __atomic_store_n(&header->undo_len, header->undo_len + sizeof *u + n * LINE, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < PAGE / LINE; i++)
        if (mask >> i & 1)
            memcpy(shadow + i * LINE, now + i * LINE, LINE);
}

static void save_page(uint32_t page)
{
    const uint8_t *now = live(page);
    uint8_t *shadow = shadow_of(page);
    if (has(shadowed, page)) {
        if (memcmp(now, shadow, PAGE))
            save_lines(page, now, shadow);
    } else if (page < at.image_pages || !is_zero(now)) { /* what has no shadow is the image's, or zero */
        memcpy(shadow, now, PAGE);
        list[header->listed++] = page;
        put(shadowed, page);
    }
}

/* From here on these pages are seen through their shadows: the process keeps no copy. */
static bool give_back(uint64_t from, uint64_t to)
{
    return from == to || mmap(live((uint32_t)from), (to - from) * PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, CM_JAIL_CHECKPOINT,
                              (off_t)(at.shadow_at + from * PAGE)) != MAP_FAILED;
}

static bool is_large(const uint32_t *pages, uint32_t count)
{
    uint32_t above = 0;
    for (uint32_t i = 0; i < count; i++)
        above += pages[i] >= at.image_pages && pages[i] < at.memory_pages;
    return above > HOT_MAX;
}

static bool save_memory(void)
{
    bool large = is_large(own, own_count);
    uint64_t given = at.image_pages, end = cm_guest_size() / PAGE;
    for (uint32_t i = 0; i < own_count; i++) {
        if (!has(guards, own[i]))
            save_page(own[i]);
        if (large && own[i] >= given + PORTION) {
            if (!give_back(given, own[i] + 1ull))
                return false;
            given = own[i] + 1ull;
        }
    }
    return !large || (give_back(given, end) && !cm_guest_guard(true, &(struct cm_err){0}));
}

static uintptr_t stack_top(uint32_t slot)
{
    return CM_STACK_BASE + (slot + 1) * CM_STACK_SIZE;
}

/* Green threads that rest between two executions. */
static bool save_stacks(void)
{
    for (uint32_t slot = 1; slot < CM_STACKS; slot++) {
        if (!cm_state.used[slot])
            continue;
        uint64_t used = pages_up(stack_top(slot) - (uintptr_t)cm_state.stack_pointer[slot]) / PAGE;
        if (used > STACK_PAGES)
            return false;
        for (uint64_t i = STACK_PAGES - used; i < STACK_PAGES; i++)
            save_page((uint32_t)(at.memory_pages + slot * STACK_PAGES + i));
    }
    return true;
}

static void commit(uint64_t word)
{
    __atomic_store_n(&header->commit, word, __ATOMIC_RELEASE);
}

/* A large undo log of an earlier save gives its memory back. */
static void trim_undo(void)
{
    uint64_t keep = pages_up(header->undo_len > UNDO_KEPT ? header->undo_len : UNDO_KEPT);
    if (undo_used > keep)
        madvise((void *)(BASE + at.undo_at + keep), pages_up(undo_used) - keep, MADV_REMOVE);
    undo_used = header->undo_len;
}

void cm_checkpoint_save(uint64_t seq)
{
    uint64_t word = header->commit & (ACTIVE | SAVED);
    struct state *next = &header->states[!(word & ACTIVE)];
    commit(word); /* there is nothing to be undone any more */
    header->undo_len = 0;
    commit(word | WRITING);
    if (!find_own() || !save_memory() || !save_stacks()) {
        commit(0);
        faults_seen = -1;
        return;
    }
    next->seq = seq;
    next->pages = header->listed;
    next->instance = cm_guest;
    next->host = cm_state;
    commit((word ^ ACTIVE) | SAVED | UNDOABLE);
    trim_undo();
    long now = faults();
    faults_seen = cm_guest_interrupted() ? -1 : now; /* its handler writes to memory that this save has passed by */
}

/* ---- restoring */

static int broken(const char *what, struct cm_err *err)
{
    return cm_err_set(err, CM_ERR_SANDBOX, "the saved state is broken: %s", what);
}

static int check_header(struct cm_err *err)
{
    if (!header->magic[0]) { /* a new file */
        memcpy(header->magic, MAGIC, sizeof header->magic);
        memcpy(header->image_id, image_id, CM_IMAGE_ID_MAX);
    }
    if (memcmp(header->magic, MAGIC, sizeof header->magic))
        return broken("its mark", err);
    if (memcmp(header->image_id, image_id, CM_IMAGE_ID_MAX))
        return cm_err_set(err, CM_ERR_SANDBOX, "the state was saved above another image than there is now");
    return 0;
}

/* Puts the undo log's lines back into the shadows. May be repeated. */
static int take_back(struct cm_err *err)
{
    uint64_t len = header->undo_len;
    if (len > at.undo_max)
        return broken("the length of its undo log", err);
    for (uint64_t off = 0; off < len;) {
        const struct undo *u = (const struct undo *)(BASE + at.undo_at + off);
        uint64_t page = u->page, mask = u->mask, size = sizeof *u + (unsigned)__builtin_popcountll(mask) * LINE;
        if (page >= at.pages || size > len - off)
            return broken("its undo log", err);
        uint8_t *shadow = shadow_of((uint32_t)page);
        for (unsigned i = 0, n = 0; i < PAGE / LINE; i++)
            if (mask >> i & 1)
                memcpy(shadow + i * LINE, u->lines[n++], LINE);
        off += size;
    }
    return 0;
}

/* Shadows that the state does not know: whoever maps that memory must find zeros. */
static int forget_shadows(uint32_t from, struct cm_err *err)
{
    uint32_t to = header->listed;
    if (to > at.pages || from > to)
        return broken("the length of its list", err);
    for (uint32_t i = from; i < to; i++)
        if (list[i] < at.pages && madvise(shadow_of(list[i]), PAGE, MADV_REMOVE))
            return cm_err_sys(err, errno, "forget a page");
    header->listed = from;
    return 0;
}

/* A bool that came as a byte may be neither. */
static void read_bools(const struct state *saved, struct state *to)
{
    const uint8_t *from = (const uint8_t *)saved->host.used;
    for (uint32_t slot = 0; slot < CM_STACKS; slot++)
        to->host.used[slot] = from[slot] != 0;
    to->host.finished = true;
}

/* What it does not look at is the guest's own affair, or is checked where it is used. */
static int check_host_state(const struct cm_guest_state *h, uint64_t size, struct cm_err *err)
{
    if (h->current != 0 || h->guard_count > CM_STACKS)
        return broken("its threads", err);
    for (uint32_t i = 0; i < h->guard_count; i++)
        if (h->guards[i] % PAGE || h->guards[i] >= size)
            return broken("its guard pages", err);
    for (uint32_t slot = 1; slot < CM_STACKS; slot++)
        if (h->used[slot] && stack_top(slot) - (uintptr_t)h->stack_pointer[slot] > STACK_PAGES * PAGE)
            return broken("its stacks", err);
    return 0;
}

static int check_state(const struct state *s, struct cm_err *err)
{
    const wasm_rt_memory_t *m = &s->instance.w2c_memory;
    if (s->pages > header->listed || header->listed > at.pages)
        return broken("its number of pages", err);
    if (m->size != (uint64_t)m->pages * 65536 || m->size / PAGE < at.image_pages || m->size / PAGE > at.memory_pages)
        return broken("the size of its memory", err);
    return check_host_state(&s->host, m->size, err);
}

static int load_pages(uint32_t count, uint64_t end, struct cm_err *err)
{
    bool large = is_large(list, count);
    if (large && !give_back(at.image_pages, end))
        return cm_err_sys(err, errno, "map the saved memory");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t page = list[i];
        if (page >= at.pages || (page >= end && page < at.memory_pages))
            return broken("its list of pages", err);
        put(shadowed, page);
        if (!large || page < at.image_pages || page >= at.memory_pages)
            memcpy(live(page), shadow_of(page), PAGE);
    }
    return 0;
}

static int load(const struct state *saved, struct cm_err *err)
{
    static struct state s; /* a copy: what was checked is what is used */
    uint64_t limit = (uint64_t)cm_state.max_pages * 65536;
    memcpy(&s, saved, sizeof s);
    read_bools(saved, &s);
    int rc = check_state(&s, err);
    if (!rc)
        rc = forget_shadows(s.pages, err);
    if (!rc)
        rc = load_pages(s.pages, s.instance.w2c_memory.size / PAGE, err);
    if (rc)
        return rc;
    cm_guest = s.instance;
    cm_state = s.host;
    cm_guest_set_limit(limit);
    return cm_guest_guard(true, err);
}

int cm_checkpoint_restore(uint64_t undo, uint64_t *ret_seq, struct cm_err *err)
{
    int rc = check_header(err);
    if (rc)
        return rc;
    uint64_t word = header->commit;
    if (undo && (word & UNDOABLE) && header->states[word & ACTIVE].seq == undo)
        word = ((word ^ ACTIVE) & ~(uint64_t)UNDOABLE) | WRITING;
    commit(word);
    if (word & WRITING) {
        rc = take_back(err);
        if (rc)
            return rc;
        word &= ~(uint64_t)WRITING;
        commit(word);
    }
    const struct state *s = &header->states[word & ACTIVE];
    if ((word & SAVED) && s->seq) {
        *ret_seq = s->seq;
        return load(s, err);
    }
    *ret_seq = 0;
    commit(0);
    memset(header->states, 0, sizeof header->states);
    return forget_shadows(0, err);
}
