/* The notify protocol of aio-notify: two posters and a loop that sleeps when there is nothing to do.
 *
 * A lost wake-up is an end in which the loop sleeps for ever: an invalid end state. One poster may stop between announcing a
 * write and writing, until the loop has taken all that the other one has posted.
 * Promela knows no weak memory: what shows only there, such as missing fences, is for the loom models to find.
 *
 * bug: NO_RECHECK  the loop does not read the flag again after it has announced its wait
 * bug: SWAPPED     a poster reads the waiting state before it raises the flag
 * bug: LATE_ACCEPT the loop checks for work and accepts afterwards
 * bug: ANNOUNCED   a poster writes nothing when another one has announced a write
 * bug: EARLY_END   a write counts as finished before it begins
 * bug: LATE_READ   a write counts as finished for what is drained after it, instead of before it
 * bug: EARLY_CLEAR the loop stores what is drained before it drains
 * bug: EMPTY_DRAIN a drain that found nothing takes back that a write has finished
 * bug: ANY_DRAIN   a write counts as finished also if there was a drain meanwhile
 */
#define POSTERS 2
#define EACH 2
#define TOTAL (POSTERS * EACH)

bool notified;
byte notify_me, posted[POSTERS], taken[POSTERS];
/* The eventfd counts the writes that are not drained. */
byte eventfd, writes;
/* One word in the program: read, exchanged and stored in one step. */
byte drained;
bool finished;
/* How many writes have finished since the loop has drained, of each poster. */
byte of_epoch[POSTERS];

#define IS_DONE (taken[0] == EACH && taken[1] == EACH)

inline finish() {
#ifdef ANY_DRAIN
    finished = true
#else
    atomic {
        if
        :: drained == seen -> finished = true
        :: else
        fi
    }
#endif
}

inline write() {
    atomic { seen = drained; is_finished = finished };
    if
    :: is_finished
#ifdef ANNOUNCED
    :: !is_finished && writes > seen
    :: !is_finished && writes <= seen ->
#else
    :: !is_finished ->
#endif
#ifdef EARLY_END
        finish();
#endif
        writes++;
        if
        :: true
        :: number == 0 -> taken[1] == EACH /* stops */
        fi;
        eventfd++;
#ifdef LATE_READ
        seen = drained;
#endif
        finish();
        atomic {
            if
            :: seen == drained ->
                of_epoch[number]++;
                assert(of_epoch[number] == 1) /* once for each poster until the loop has run */
            :: else
            fi
        }
    fi
}

inline notify() {
#ifdef SWAPPED
    waits = notify_me;
    notified = true;
#else
    notified = true;
    waits = notify_me;
#endif
    if
    :: waits > 0 -> write()
    :: else
    fi
}

proctype poster(byte number) {
    byte post, waits, seen;
    bool is_finished;
    for (post : 1 .. EACH) {
        posted[number]++;
        notify()
    }
}

/* One swap: reading and lowering the flag are one step. */
inline accept() {
    if
    :: writes != drained ->
#ifdef EARLY_CLEAR
        atomic { drained = writes; finished = false; of_epoch[0] = 0; of_epoch[1] = 0 };
        eventfd = 0;
#else
        atomic { count = eventfd; eventfd = 0 };
        atomic {
            if
#ifdef EMPTY_DRAIN
            :: count == 0 -> finished = false
#endif
            :: count > 0 ->
                drained = drained + count;
                finished = false;
                of_epoch[0] = 0;
                of_epoch[1] = 0
            :: else
            fi
        };
#endif
    :: else
    fi;
    notified = false
}

inline take() {
    atomic { taken[0] = posted[0]; taken[1] = posted[1] }
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
    byte count;
    run poster(0);
    run poster(1);
    do
    :: IS_DONE -> break
    :: else ->
#ifdef LATE_ACCEPT
        take();
        accept();
#else
        accept();
        take();
#endif
        if
        :: !IS_DONE ->
            prepare_to_wait();
            if
            :: may_block ->
                eventfd > 0; /* sleeps until it is written */
                if
                :: true
                :: true -> /* accepts while the wait stays announced, as in a poll inside a foreign loop's wait */
                    accept();
                    take();
                    if
                    :: !IS_DONE -> eventfd > 0
                    :: else
                    fi
                fi;
                notify_me--
            :: else
            fi
        :: else
        fi
    od
}
