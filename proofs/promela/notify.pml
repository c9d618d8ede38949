/* The notify protocol of aio-notify: two posters and a loop that sleeps when there is nothing to do.
 *
 * A lost wake-up is an end in which the loop sleeps for ever: an invalid end state.
 * Promela knows no weak memory: what shows only there, the missing fences and the poster that does nothing when the flag is up
 * already, is for the loom models to find.
 *
 * bug: NO_RECHECK  the loop does not read the flag again after it has announced its wait
 * bug: SWAPPED     a poster reads who waits before it raises the flag
 * bug: LATE_ACCEPT the loop looks for work and accepts afterwards
 */
#define POSTERS 2
#define EACH 2
#define TOTAL (POSTERS * EACH)

bool notified, rung;
byte notify_me, inbox, taken;

inline raise() {
    notified = true;
    if
    :: notify_me > 0 -> rung = true
    :: else
    fi
}

inline notify() {
#if defined(SWAPPED)
    early = notify_me;
    notified = true;
    if
    :: early > 0 -> rung = true
    :: else
    fi
#else
    raise()
#endif
}

proctype poster() {
    byte post, early;
    for (post : 1 .. EACH) {
        inbox++;
        notify()
    }
}

/* One swap: reading and lowering the flag are one step. */
inline accept() {
    rung = false;
    notified = false
}

inline take() {
    atomic { taken = taken + inbox; inbox = 0 }
}

inline prepare_to_wait() {
    notify_me++;
#ifdef NO_RECHECK
    may_block = true
#else
    may_block = !notified;
    if
    :: !may_block -> notify_me--
    :: else
    fi
#endif
}

active proctype home() {
    bool may_block;
    run poster();
    run poster();
    do
    :: taken == TOTAL -> break
    :: else ->
#ifdef LATE_ACCEPT
        take();
        accept();
#else
        accept();
        take();
#endif
        if
        :: taken < TOTAL ->
            prepare_to_wait();
            if
            :: may_block ->
                rung; /* sleeps until somebody rings */
                notify_me--
            :: else
            fi
        :: else
        fi
    od
}
