/* The end of a context while other threads still post: each message is run, handed out by the close, or refused, once.
 *
 * bug: NO_MARK     the close takes what is there and leaves the inbox open
 * bug: TWO_STEPS   the close takes what is there, and marks the inbox afterwards
 * bug: BLIND_PUSH  a poster pushes without looking whether the inbox was closed meanwhile
 */
#define POSTERS 2
#define CLOSED 255

byte head;    /* how many are in the inbox, or CLOSED */
byte run_, handed_out, refused;
byte finished;

proctype poster() {
    byte seen;
#ifdef BLIND_PUSH
    seen = head;
    if
    :: seen == CLOSED -> refused++
    :: else -> atomic { head = (head == CLOSED -> CLOSED : head + 1) }
    fi;
#else
    do /* compare and swap */
    :: seen = head;
       if
       :: seen == CLOSED -> refused++; break
       :: else ->
           atomic {
               if
               :: head == seen -> head = seen + 1; seen = CLOSED
               :: else
               fi
           }
           if
           :: seen == CLOSED -> break
           :: else
           fi
       fi
    od;
#endif
    finished++
}

active proctype home() {
    byte took;
    run poster();
    run poster();
    if /* an iteration comes before the end, or not */
    :: atomic { run_ = run_ + head; head = 0 }
    :: true
    fi;
#if defined(NO_MARK)
    atomic { handed_out = handed_out + head; head = 0 }
#elif defined(TWO_STEPS)
    took = head;
    handed_out = handed_out + took;
    head = CLOSED;
#else
    atomic { handed_out = handed_out + head; head = CLOSED }
#endif
    finished == POSTERS;
    assert(run_ + handed_out + refused == POSTERS)
}
