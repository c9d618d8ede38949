/* The doorbell board of aio-notify: two sources that ring, and a loop that polls for a while and then rests.
 *
 * A ring that nobody serves is an end in which the loop sleeps for ever: an invalid end state.
 *
 * bug: NO_LAST_LOOK   the loop does not look once more after it has said that it rests
 * bug: END_ANY_REST   a ring ends the rest that it has seen, also when another one has begun
 * bug: REST_GOES_ON   a loop that rests, and rests again, keeps its turn
 * bug: QUIET_FIRST    a ring ends the rest before it wakes, and is stopped in between for ever
 */
#define SOURCES 2

bool bits[SOURCES], woken;
byte turn = 1; /* odd: the loop rests */
byte served;

inline end_rest(seen) {
#ifdef END_ANY_REST
    turn = seen + 1
#else
    atomic {
        if
        :: turn == seen -> turn = seen + 1
        :: else
        fi
    }
#endif
}

proctype source(byte number) {
    byte seen;
    bits[number] = true;
    seen = turn;
    if
    :: seen % 2 == 1 ->
#ifdef QUIET_FIRST
        end_rest(seen);
        if
        :: woken = true
        :: number == 0 -> goto stopped
        fi
#else
        woken = true;
        end_rest(seen)
#endif
    :: else
    fi;
stopped:
    skip
}

inline serve() {
    for (at : 0 .. SOURCES - 1) {
        atomic {
            if
            :: bits[at] -> bits[at] = false; served++
            :: else
            fi
        }
    }
}

inline rest() {
    seen = turn;
    if
    :: seen % 2 == 0 -> turn = seen + 1
    :: else ->
#ifndef REST_GOES_ON
        end_rest(seen);
        turn = seen + 2
#else
        skip
#endif
    fi
}

active proctype home() {
    byte at, seen;
    run source(0);
    run source(1);
    do
    :: served == SOURCES -> break
    :: else ->
        if
        :: true -> /* polls before it rests */
            seen = turn;
            if
            :: seen % 2 == 1 -> end_rest(seen)
            :: else
            fi;
            serve()
        :: true
        fi;
        rest();
#ifndef NO_LAST_LOOK
        serve();
#endif
        if
        :: served < SOURCES -> woken; woken = false
        :: else
        fi
    od
}
