<?php
// Applies JSON lines from standard input to the wiki: upload, edit, delete, undelete, move; in one process, in order.
// Failures go to standard error, one line each; the exit status is 1 if there were any.
require_once getenv( 'MW_INSTALL_PATH' ) . '/maintenance/Maintenance.php';

use MediaWiki\MediaWikiServices;
use Wikimedia\Timestamp\ConvertibleTimestamp;

class FixtureOps extends Maintenance {
	private const BY_ADMIN = [ 'delete', 'undelete', 'move' ];
	private const OPS_A_COMMIT = 50;

	public function execute() {
		$number = $failed = 0;
		$uploaded = [];
		while ( ( $line = fgets( STDIN ) ) !== false ) {
			$op = json_decode( $line, true );
			if ( !$op ) {
				continue;
			}
			// What these change must have been written before.
			$again = $op['op'] === 'upload' && isset( $uploaded[$op['name']] );
			if ( in_array( $op['op'], self::BY_ADMIN ) || $again ) {
				$this->commit();
				MediaWikiServices::getInstance()->getLinkCache()->clear();
			}
			if ( $op['op'] === 'upload' ) {
				$uploaded[$op['name']] = true;
			}
			$wrong = $this->apply( $op );
			if ( $wrong !== null ) {
				$failed++;
				$what = $op['op'] . ' ' . ( $op['name'] ?? $op['title'] ?? $op['from'] ?? '' );
				fwrite( STDERR, "$what: $wrong\n" );
			}
			if ( ++$number % self::OPS_A_COMMIT === 0 ) {
				$this->commit();
			}
		}
		ConvertibleTimestamp::setFakeTime( false );
		DeferredUpdates::doUpdates();
		return $failed === 0;
	}

	private function commit() {
		MediaWikiServices::getInstance()->getDBLoadBalancerFactory()->commitPrimaryChanges( __METHOD__ );
		DeferredUpdates::doUpdates();
	}

	/** What went wrong, null if nothing did. */
	private function apply( array $op ) {
		$name = $op['user'] ?? ( in_array( $op['op'], self::BY_ADMIN ) ? 'Admin' : 'Fixture' );
		$user = User::newSystemUser( $name, [ 'steal' => true ] );
		StubGlobalUser::setUser( $user );
		ConvertibleTimestamp::setFakeTime( isset( $op['ts'] ) ? (string)$op['ts'] : false );
		try {
			$status = $this->perform( $op, $user );
		} catch ( Throwable $error ) {
			return get_class( $error ) . ': ' . $error->getMessage();
		}
		return $status->isOK() ? null : $status->getWikiText( false, false, 'en' );
	}

	private function perform( array $op, User $user ): Status {
		$services = MediaWikiServices::getInstance();
		$pages = $services->getWikiPageFactory();
		$title = static fn ( string $text ) => Title::newFromTextThrow( $text );
		switch ( $op['op'] ) {
			case 'upload':
				$file = $services->getRepoGroup()->getLocalRepo()->newFile( Title::makeTitle( NS_FILE, $op['name'] ) );
				$file->load( File::READ_LATEST );
				$comment = $op['comment'] ?? 'upload';
				return $file->upload( $op['src'], $comment, $op['text'] ?? '', 0, false, false, $user );
			case 'edit':
				$page = $title( $op['title'] );
				$content = ContentHandler::makeContent( $op['text'], $page );
				return $pages->newFromTitle( $page )->doUserEditContent( $content, $user, $op['summary'] ?? '' );
			case 'delete':
				$page = $title( $op['title'] );
				$reason = $op['reason'] ?? 'deleted';
				if ( $page->inNamespace( NS_FILE ) ) {
					$file = $services->getRepoGroup()->getLocalRepo()->newFile( $page );
					$file->load( File::READ_LATEST );
					if ( $file->exists() ) {
						$old = null;
						return FileDeleteForm::doDelete( $page, $file, $old, $reason, false, $user );
					}
				}
				$deletion = $services->getDeletePageFactory()->newDeletePage( $pages->newFromTitle( $page ), $user );
				return Status::wrap( $deletion->deleteUnsafe( $reason ) );
			case 'undelete':
				$page = $pages->newFromTitle( $title( $op['title'] ) );
				$restoration = $services->getUndeletePageFactory()->newUndeletePage( $page, $user );
				return Status::wrap( $restoration->undeleteUnsafe( $op['reason'] ?? 'restored' ) );
			case 'move':
				$move = $services->getMovePageFactory()->newMovePage( $title( $op['from'] ), $title( $op['to'] ) );
				return $move->move( $user, $op['reason'] ?? 'moved', $op['redirect'] ?? true );
		}
		return Status::newFatal( 'rawmessage', 'unknown op' );
	}
}

$maintClass = FixtureOps::class;
require_once RUN_MAINTENANCE_IF_MAIN;
